"""The names of `secateur` that rank, train and replay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import secateur
from secateur_runtime.errors import OutputError, UsageError
from secateur_runtime.ladder_file import read_ladder

Maker = Callable[..., Path]


def test_a_ladder_and_a_replay_of_it(tiny: Maker, tmp_path: Path) -> None:
    how = secateur.Rank(
        calibration=secateur.Calibration(samples=2, window=32), probe=2, widths=1, floor=0.0, context=64
    )
    model, out = str(tiny("llama")), tmp_path / "ladder.json"
    ladder = secateur.rank(model, out, how)
    assert read_ladder(out) == ladder
    with pytest.raises(OutputError, match="exists"):
        secateur.rank(model, out, how)
    runs = secateur.simulate(out, "steady", ("none", "greedy"), requests=3)
    assert [run.policy for run in runs] == ["none", "greedy"]
    assert runs[1].killed <= runs[0].killed
    with pytest.raises(UsageError, match="unknown policy"):
        secateur.simulate(out, policies=["greedi"])


def test_training_does_not_overwrite(tmp_path: Path) -> None:
    (tmp_path / "policy.safetensors").write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists"):
        secateur.train_policy(tmp_path / "ladder.json", tmp_path / "policy.safetensors")
    assert (tmp_path / "policy.safetensors").read_bytes() == b"mine"
