"""Which zeros grow: those of the criterion named, by inputs that the dense model really has."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import Maker

from secateur.core.execution import CalibrationText
from secateur.model.full_model import load_whole
from secateur.model.handle import open_model
from secateur.pipeline.prune.weights.methods import method_of
from secateur.pipeline.recover.distill import Distill
from secateur.pipeline.recover.gradual_pruning import by_criterion, grown
from secateur_runtime.errors import UsageError


def test_inputs_of_the_dense_model_decide(tiny: Maker) -> None:
    """Wanda's formula in float64, at the end of a block in the middle."""
    model = open_model(str(tiny("llama")))
    whole = load_whole(model, torch.float32)
    tokens = torch.randint(0, 200, (3, 40), generator=torch.Generator().manual_seed(0))
    seen, name = list[torch.Tensor](), "model.layers.1.mlp.down_proj.weight"
    handle = whole.get_submodule(name.removesuffix(".weight")).register_forward_pre_hook(
        lambda _module, given: seen.append(given[0].double())
    )
    with torch.no_grad():
        whole(tokens, use_cache=False)
    handle.remove()
    weight = whole.get_parameter(name).detach()
    score = weight.double().abs() * seen[0].square().mean((0, 1)).sqrt()
    kept = round(0.6 * weight.shape[1])
    expected = torch.zeros_like(weight, dtype=torch.bool).scatter_(1, score.topk(kept, 1).indices, value=True)
    ratio = 1 - kept / weight.shape[1]
    assert torch.equal(by_criterion("wanda", whole, model.graph, tokens)(name, weight, ratio), expected)
    assert not torch.equal(
        by_criterion("magnitude", whole, model.graph, tokens)(name, weight, ratio), expected
    )


def test_the_plan_says_which(tiny: Maker) -> None:
    model = open_model(str(tiny("llama")))
    text = CalibrationText(text="builtin", samples=2, window=8, digest="sha256:0")
    plans = {name: grown(model, name, 0.5, text, 0) for name in ("wanda", "magnitude")}
    assert all(method_of(plan.execution).criterion == name for name, plan in plans.items())
    assert plans["wanda"].made_by["scope"] == "row"
    assert "calibration" not in plans["magnitude"].made_by
    assert {name: plan.execution.calibration for name, plan in plans.items()} == {
        "wanda": text,
        "magnitude": None,
    }
    assert plans["wanda"].sparsity.keys() == {linear.tensor for linear in model.graph.linears}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wandaa", "unknown criterion 'wandaa'"),
        ("obs", "more than the sizes of inputs while a model is trained"),
    ],
)
def test_criteria_that_cannot_work(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Distill(sparsity=0.5, criterion=name).check()
