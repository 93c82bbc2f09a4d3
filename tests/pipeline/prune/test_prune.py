"""Pruning in one call is planning, then applying."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Maker

from secateur.calibrate.calibration import Calibration
from secateur.core.context import Settings
from secateur.pipeline.prune.apply import apply
from secateur.pipeline.prune.plan import plan
from secateur.pipeline.prune.prune import prune

TEXT = Calibration(samples=4, window=32)
STORED = Settings(dtype="float16")


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_one_call_writes_what_two_write(tiny: Maker, tmp_path: Path) -> None:
    model = str(tiny("llama"))
    made = prune(
        model, tmp_path / "a", sparsity="2:4", method="wanda", calibration=TEXT, seed=2, settings=STORED
    )
    decided = plan(model, sparsity="2:4", method="wanda", calibration=TEXT, seed=2)
    apply(decided, model, tmp_path / "b", settings=STORED)
    assert made.plan == decided
    assert made.plan.made_by["seed"] == "2"
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")
