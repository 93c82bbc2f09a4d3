"""Which weights a plan keeps at zero, found under the numbers of the model that it was made for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.conftest import Maker
from torch import Tensor

from secateur.calibrate.calibration import Calibration
from secateur.core.context import Settings
from secateur.core.execution import Execution
from secateur.core.plan import Plan
from secateur.model.handle import open_model
from secateur.pipeline.prune.apply import apply
from secateur.pipeline.prune.plan_masks import check_masks, mask_of, planned_name
from secateur.pipeline.recover.local_reconstruction import Local
from secateur.pipeline.recover.recover import recover
from secateur.pipeline.recover.training_run import Recovered
from secateur_runtime.errors import PlanError

TEXT = Calibration(samples=24, window=48)


EXACT = Settings(dtype="float32", arithmetic="float32")


DEEP = {"num_hidden_layers": 6}


SHORT = Local(steps=30, batch=96, rate=0.02, dense=1.0)


def _weights(folder: Path) -> dict[str, Tensor]:
    source = open_model(str(folder)).source
    return {name: source.read(name) for name in source.tensors}


def _recover(
    student: Path, teacher: Path, out: Path, how: Local = SHORT, settings: Settings = EXACT
) -> Recovered:
    return recover(str(student), out, how, teacher=str(teacher), calibration=TEXT, settings=settings)


def test_a_mask_is_known_by_the_numbers_of_the_model_that_was_pruned(tiny: Maker, tmp_path: Path) -> None:
    """Blocks are renumbered when some are dropped, the plan is not.

    Zeros of the plan stay, those of chance may go.
    """
    teacher = open_model(str(tiny("llama", **DEEP)))
    masked = "model.layers.4.mlp.up_proj.weight"
    plan = Plan(
        model=teacher.digest,
        drop=("1", "2.attn", "2.ffn"),
        sparsity={masked: "0.5"},
        execution=Execution(criterion="magnitude"),
    )
    apply(plan, str(tiny("llama", **DEEP)), tmp_path / "student", settings=EXACT)
    _recover(tmp_path / "student", tiny("llama", **DEEP), tmp_path / "out")
    weights = _weights(tmp_path / "out")
    assert (
        int((weights["model.layers.2.mlp.up_proj.weight"] == 0).sum())
        == weights["model.layers.2.mlp.up_proj.weight"].numel() // 2
    )


def test_names_count_the_blocks_of_the_model_that_was_planned(tiny: Maker) -> None:
    graph = open_model(str(tiny("llama"))).graph
    plan = Plan(model="", drop=("0", "2.attn", "2.ffn", "3.attn"))
    names = [planned_name(f"{block.prefix}mlp.up_proj.weight", block, plan) for block in graph.blocks]
    assert names == [f"model.layers.{index}.mlp.up_proj.weight" for index in (1, 3, 4)]


def test_what_may_change_is_what_is_not_zero(tiny: Maker) -> None:
    block = open_model(str(tiny("llama"))).graph.blocks[0]
    name = f"{block.prefix}mlp.up_proj.weight"
    weight = torch.tensor([[1.0, 0.0], [0.0, -2.0]])
    found = mask_of(name, weight, block, None)
    assert found is not None
    assert found.tolist() == [[True, False], [False, True]]
    assert mask_of(name, torch.ones(2, 2), block, None) is None
    # A plan that does not prune this weight leaves its chance zeros free.
    other = Plan(model="", sparsity={"model.layers.1.mlp.up_proj.weight": "0.50"})
    assert mask_of(name, weight, block, other) is None
    assert mask_of(name, weight, block, Plan(model="", sparsity={name: "0.50"})) is not None


def test_a_lost_mask_is_refused_unless_units_were_cut_too(tiny: Maker) -> None:
    model = open_model(str(tiny("llama")))
    sparsity = {"model.layers.1.mlp.up_proj.weight": "2:4"}
    with pytest.raises(PlanError, match=r"up_proj.weight of .* does not have the sparsity 2:4"):
        check_masks(model, Plan(model="", sparsity=sparsity))
    check_masks(model, Plan(model="", sparsity=sparsity, keep={"1.ffn": (0,)}))
    check_masks(model, None)
