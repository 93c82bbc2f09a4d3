"""Pruning in one call is planning, then applying."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Maker

from secateur.calibrate.calibration import Calibration
from secateur.calibrate.text import read_text
from secateur.core.context import Settings
from secateur.core.plan import Plan
from secateur.pipeline.prune import rotation
from secateur.pipeline.prune.apply import apply
from secateur.pipeline.prune.auto.decide import Auto
from secateur.pipeline.prune.depth.decide import Depth
from secateur.pipeline.prune.kinds import Goal
from secateur.pipeline.prune.plan import plan
from secateur.pipeline.prune.prune import prune
from secateur.pipeline.prune.weights.decide import Sparsity
from secateur.pipeline.prune.width.decide import Width

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


def test_one_run_reads_its_text_once_and_finds_its_rotation_once(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    turned: list[str] = []
    turn = rotation._rotation

    def reading(name: str) -> Any:
        read.append(name)
        return read_text(name)

    def turning(model: Any, way: str, *more: Any) -> Any:
        turned.append(way)
        return turn(model, way, *more)

    monkeypatch.setattr("secateur.calibrate.calibration.read_text", reading)
    monkeypatch.setattr(rotation, "_rotation", turning)
    goal = Sparsity(sparsity=0.5, method="wanda", rotate="pca")
    prune(str(tiny("llama")), tmp_path / "a", goal, calibration=TEXT)
    assert (read, turned) == (["builtin"], ["pca"])
    prune(str(tiny("llama")), tmp_path / "b", goal, calibration=TEXT)
    assert (read, turned) == (["builtin"] * 2, ["pca"] * 2)


@pytest.mark.parametrize(
    "goal",
    [
        Sparsity(sparsity="2:4", method="sparsegpt"),
        Width(units=("ffn", "kv"), ratio=0.3, align=8),
        Depth(drop_layers=1, sub_blocks=True),
        Auto(target="params=80%", align=8),
    ],
)
def test_a_plan_of_version_1_is_carried_out_as_one_of_version_2(
    tiny: Maker, tmp_path: Path, goal: Goal
) -> None:
    model = str(tiny("llama"))
    decided = plan(model, goal, calibration=TEXT)
    body = json.loads(decided.to_json()) | {"version": 1}
    del body["execution"]
    older = Plan.from_json(json.dumps(body))
    assert older.execution == decided.execution
    apply(older, model, tmp_path / "older")
    apply(decided, model, tmp_path / "newer")
    weights = [
        {name: body for name, body in _bytes(tmp_path / out).items() if name.endswith(".safetensors")}
        for out in ("older", "newer")
    ]
    assert weights[0] == weights[1]
    assert json.loads((tmp_path / "older" / "plan.json").read_text())["version"] == 1
