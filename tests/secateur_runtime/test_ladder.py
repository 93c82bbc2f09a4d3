"""The ladder: its levels, its file, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ladders import EXAMPLE, ladder_for

from secateur.core.ladder_plan import check_ladder, plan_of_level, plan_of_units
from secateur.model.handle import open_model
from secateur_runtime.errors import LadderError, OutputError
from secateur_runtime.ladder_file import parse_ladder, read_ladder


def test_levels_are_nested_plans() -> None:
    assert EXAMPLE.kept(0) == {"0.kv": 2, "0.ffn": 4, "1.kv": 2, "1.ffn": 4, "2.kv": 2, "2.ffn": 4}
    assert EXAMPLE.kept(3) == {"0.kv": 2, "0.ffn": 4, "1.kv": 0, "1.ffn": 0, "2.kv": 2, "2.ffn": 4}
    assert (plan_of_level(EXAMPLE, 0).keep, plan_of_level(EXAMPLE, 0).drop) == ({}, ())
    assert (plan_of_level(EXAMPLE, 1).keep, plan_of_level(EXAMPLE, 1).drop) == ({"1.ffn": (0, 1)}, ())
    assert (plan_of_level(EXAMPLE, 4).keep, set(plan_of_level(EXAMPLE, 4).drop)) == (
        {"0.kv": (1,)},
        {"1.attn", "1.ffn"},
    )
    assert plan_of_level(EXAMPLE, 4).model == EXAMPLE.model


def test_need_and_the_first_level_that_fits() -> None:
    assert EXAMPLE.need(0, batch=2, tokens=10, kv_bytes=2) == 1000 + 48 * 2 * 2 * 10
    assert EXAMPLE.level_fitting(1000) == 0
    assert EXAMPLE.level_fitting(999) == 1
    assert EXAMPLE.level_fitting(900 + 32 * 4 * 10, tokens=10) == 2
    assert EXAMPLE.level_fitting(829) is None
    assert [EXAMPLE.at(level).loss for level in range(len(EXAMPLE))] == [2.0, 2.05, 2.11, 2.3, 2.9]


@pytest.mark.parametrize("level", [-1, 5])
def test_a_level_that_is_not_there_is_one_line(level: int) -> None:
    for ask in (EXAMPLE.at, EXAMPLE.kept, partial(plan_of_level, EXAMPLE)):
        with pytest.raises(LadderError, match=r"levels 0 \(the whole model\) to 4"):
            ask(level)


def test_a_ladder_comes_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "ladder.json"
    EXAMPLE.save(path)
    assert read_ladder(path) == EXAMPLE
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OutputError, match="--overwrite"):
        EXAMPLE.save(path)
    EXAMPLE.save(path, overwrite=True)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        EXAMPLE.save(tmp_path / "none" / "ladder.json")


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


def test_a_ladder_must_be_made_for_its_model(tiny: Callable[..., Path]) -> None:
    model = open_model(str(tiny("llama")))
    ladder = ladder_for(model.graph, model.digest, ["1.attn", "1.ffn:32"])
    check_ladder(ladder, model.graph, model.digest)
    plan_of_level(ladder, 2).validate(model.graph, model.digest)
    with pytest.raises(LadderError, match="was made for"):
        check_ladder(ladder, model.graph, "sha256:" + "1" * 64)
    with pytest.raises(LadderError, match=r"orders 2 units of '1\.ffn', which has 96"):
        check_ladder(replace(ladder, order={**ladder.order, "1.ffn": (0, 1)}), model.graph, model.digest)
    with pytest.raises(LadderError, match=r"orders '7\.ffn'"):
        check_ladder(replace(ladder, order={**ladder.order, "7.ffn": (0, 1)}), model.graph, model.digest)
    with pytest.raises(LadderError, match=r"lacks '1\.ffn'"):
        order = {name: units for name, units in ladder.order.items() if name != "1.ffn"}
        check_ladder(replace(ladder, order=order, rungs=()), model.graph, model.digest)


def test_steps_may_be_taken_out_of_order_but_not_within_a_half() -> None:
    assert EXAMPLE.kept_without(["1.attn", "0.kv:1"]) == {
        "0.kv": 1,
        "0.ffn": 4,
        "1.kv": 0,
        "1.ffn": 4,
        "2.kv": 2,
        "2.ffn": 4,
    }
    plan = plan_of_units(EXAMPLE, ["1.attn", "0.kv:1"])
    assert (plan.keep, plan.drop, plan.model) == ({"0.kv": (1,)}, ("1.attn",), EXAMPLE.model)
    assert [EXAMPLE.kept(level) for level in range(5)] == [
        EXAMPLE.kept_without(rung.unit for rung in EXAMPLE.rungs[:level]) for level in range(5)
    ]
    with pytest.raises(LadderError, match=r"'1\.ffn' cannot be removed without '1\.ffn:2'"):
        EXAMPLE.kept_without(["1.ffn"])
    with pytest.raises(LadderError, match=r"no step '1\.atn' \(did you mean 1\.attn\?\)"):
        EXAMPLE.kept_without(["1.atn"])
