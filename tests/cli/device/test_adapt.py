"""`secateur adapt rank` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.command import Secateur

from secateur_runtime.ladder_file import read_ladder

Maker = Callable[..., Path]
FEW = ("--samples", 2, "--calib-window", 32, "--probe", 1, "--context", 256)


def test_rank_writes_a_ladder(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    output = tmp_path / "ladder.json"
    code, out, err = secateur(
        "adapt", "rank", tiny("llama"), "-o", output, *FEW, "--widths", 2, "--floor", 0, "--json"
    )
    assert code == 0, err
    body, ladder = json.loads(out), read_ladder(output)
    assert body["levels"] == len(ladder) > 4
    assert body["last_weight_bytes"] == ladder.rungs[-1].weight_bytes < ladder.whole.weight_bytes
    assert body["context"] == ladder.made_by["context"] == "256"
    assert list(tmp_path.iterdir()) == [output]
    code, _, err = secateur("adapt", "rank", tiny("llama"), "-o", output, *FEW)
    assert (code, err.count("\n")) == (2, 1)
    assert "--overwrite" in err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--floor", 1), "--floor"),
        (("--criterion", "contributions"), "did you mean contribution"),
        (("--protect", "x"), "--protect"),
        (("--calib", "none.txt"), "none.txt"),
        (("-o", "none/ladder.json"), "is no folder"),
    ],
)
def test_rank_refuses_in_one_line(
    options: tuple[object, ...],
    says: str,
    secateur: Secateur,
    tiny: Maker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = secateur("adapt", "rank", tiny("llama"), *FEW, *options)
    assert (code, err.count("\n")) == (2, 1)
    assert says in err
    assert list(tmp_path.iterdir()) == []
