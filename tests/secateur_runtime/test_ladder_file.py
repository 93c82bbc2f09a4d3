"""The file of a ladder: read back as written, and refused in one line if it is not one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ladders import EXAMPLE

from secateur_runtime.errors import LadderError, OutputError
from secateur_runtime.ladder_file import parse_ladder, read_ladder


def test_a_ladder_comes_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "ladder.json"
    EXAMPLE.save(path)
    assert read_ladder(path) == EXAMPLE
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OutputError, match="--overwrite"):
        EXAMPLE.save(path)
    EXAMPLE.save(path, overwrite=True)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_half_a_file_is_refused_in_one_line(data: st.DataObject) -> None:
    text = EXAMPLE.to_json().rstrip()
    with pytest.raises(LadderError) as error:
        parse_ladder(text[: data.draw(st.integers(0, len(text) - 1))])
    assert "\n" not in str(error.value)


def _rung(body: dict[str, Any], place: int, **change: Any) -> None:
    body["rungs"][place] |= change


BROKEN: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda body: body.update(orders={}), r"unknown key 'orders' \(did you mean order\?\)"),
    (lambda body: body.update(version=2), "version is 2"),
    (lambda body: body.update(version=True), "version is True"),
    (lambda body: body.pop("model"), "no 'model' digest"),
    (lambda body: body.update(made_by={"a": 1}), "made_by"),
    (lambda body: body.update(rungs={}), "no list of 'rungs'"),
    (lambda body: body.pop("whole"), "a rung that is not"),
    (lambda body: body.pop("order"), "no 'order'"),
    (lambda body: body["order"].update({"x.kv": [0]}), "orders 'x.kv'"),
    (lambda body: body["order"].update({"1.head": [0]}), "orders '1.head'"),
    (lambda body: body["order"].update({"1.ffn": [0, 0, 1, 2]}), "every unit from 0 on once"),
    (lambda body: body["order"].update({"1.ffn": [0, True]}), "every unit from 0 on once"),
    (lambda body: _rung(body, 0, loss=float("nan")), "finite loss"),
    (lambda body: _rung(body, 0, loss=True), "finite loss"),
    (lambda body: _rung(body, 0, weight_bytes=960.0), "whole numbers"),
    (lambda body: _rung(body, 0, unit=3), "whose unit is 3"),
    (lambda body: _rung(body, 0, extra=3), "a rung that is not"),
    (lambda body: _rung(body, 0, unit="1.ffn:4"), "4 units of '1.ffn' are left"),
    (lambda body: _rung(body, 0, unit="1.ffn:0"), "units of '1.ffn' are left"),
    (lambda body: _rung(body, 0, unit="1.ffn:"), "no unit of its model"),
    (lambda body: _rung(body, 0, unit="1.kv"), "no unit of its model"),
    (lambda body: _rung(body, 0, unit="1.attn:1"), "no unit of its model"),
    (lambda body: _rung(body, 0, unit="9.attn"), "no unit of its model"),
    (lambda body: _rung(body, 3, unit="1.attn"), "0 units of '1.kv' are left"),
    (lambda body: _rung(body, 3, unit="0.attn"), "first and the last block"),
    (lambda body: _rung(body, 3, unit="2.ffn"), "first and the last block"),
    (lambda body: _rung(body, 3, weight_bytes=861), "grows at '0.kv:1'"),
    (lambda body: _rung(body, 3, kv_values=33), "grows at '0.kv:1'"),
    (lambda body: body.update(costs=[{"1.ffn": "x"}]), "'costs'"),
    (lambda body: body.update(costs=[{}] * 6), "costs of 6 levels"),
    (lambda body: body.update(costs=[{}, {"1.ffn:3": 2.0}]), "2 units of '1.ffn' are left"),
]


@pytest.mark.parametrize(("change", "says"), BROKEN)
def test_what_is_no_ladder_is_refused_in_one_line(
    change: Callable[[dict[str, Any]], Any], says: str, tmp_path: Path
) -> None:
    body = json.loads(EXAMPLE.to_json())
    change(body)
    path = tmp_path / "ladder.json"
    path.write_text(json.dumps(body))
    with pytest.raises(LadderError, match=says) as error:
        read_ladder(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"[]", b"{}", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "ladder.json"
    path.write_bytes(content)
    with pytest.raises(LadderError):
        read_ladder(path)
    with pytest.raises(LadderError, match="secateur adapt rank"):
        read_ladder(tmp_path / "none.json")
