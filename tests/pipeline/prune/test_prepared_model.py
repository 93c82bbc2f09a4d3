"""A prepared model computes what the pruned one will, and gives each tensor as it will be stored."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import Maker

from secateur.core.context import RunContext, Settings
from secateur.core.execution import Execution
from secateur.core.plan import Plan
from secateur.model.handle import open_model
from secateur.model.views.hidden_channels import Narrowed
from secateur.model.written.reload_check import model_logits
from secateur.pipeline.prune.prepared_model import prepared

TOKENS = torch.arange(24)[None]
STORED = RunContext(settings=Settings(dtype="bfloat16"))


def test_a_model_that_keeps_its_channels_is_only_rounded(tiny: Maker) -> None:
    model = open_model(str(tiny("llama")))
    ready = prepared(model, Plan(model=model.digest, keep={"0.ffn": tuple(range(40))}), TOKENS, STORED)
    assert not ready.cuts_channels
    assert ready.model.source is model.source
    name = "model.embed_tokens.weight"
    assert torch.equal(ready.stored(name), model.source.read(name).to(torch.bfloat16))
    rounded = model.stream(outside=torch.bfloat16)
    assert torch.equal(model_logits(ready.stream(), TOKENS), model_logits(rounded, TOKENS))


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_channels_that_go_are_silent_and_folds_are_stored(tiny: Maker, family: str) -> None:
    model = open_model(str(tiny(family)))
    kept = tuple(range(0, 64, 2))
    ready = prepared(model, Plan(model=model.digest, keep={"hidden": kept}), TOKENS, STORED)
    assert ready.cuts_channels
    assert isinstance(ready.model.source, Narrowed)
    assert ready.folds == set(ready.model.source.folds)
    assert not bool(ready.model.source.read("model.layers.0.mlp.up_proj.weight")[:, 1::2].any())
    norm = "model.layers.0.input_layernorm.weight"
    offset = model.family.norm_offset
    scaled = (model.source.read(norm).float() + offset) * 2**0.5 - offset
    torch.testing.assert_close(ready.stored(norm).float(), scaled, rtol=8e-3, atol=8e-3)


def test_a_merge_and_the_biases_of_a_repair_are_in_it(tiny: Maker) -> None:
    model = open_model(str(tiny("llama")))
    plan = Plan(
        model=model.digest,
        keep={"0.ffn": tuple(range(40))},
        drop=("2",),
        merge={"1": ("2",)},
        execution=Execution(unit_repair="bias"),
    )
    ready = prepared(model, plan, TOKENS, RunContext())
    first, second = (f"model.layers.{index}.mlp.down_proj.weight" for index in (1, 2))
    torch.testing.assert_close(ready.model.source.read(first), model.source.read(second))
    assert "model.layers.0.mlp.down_proj.bias" in ready.graph.tensors
    assert ready.model.digest == model.digest
