"""The rows of the family table, against transformers' own classes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.conftest import Maker
from torch import Tensor

from secateur.model.families import BASE_KEY, EMBED, FAMILIES, family_of
from secateur_runtime.errors import UnsupportedModelError


def load(folder: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_biases_under_every_flag_are_those_of_transformers(tiny: Maker, family: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    row = FAMILIES[family]
    prefix = "model.layers.1."
    for flag in ("", *(row.bias_flags or {})):
        flags = {one: one == flag for one in row.bias_flags or {}}
        config = AutoConfig.from_pretrained(tiny(family), **flags)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        names = {
            name.removeprefix(prefix).removesuffix(".bias")
            for name, _ in model.named_parameters()
            if name.startswith(prefix) and name.endswith(".bias")
        }
        assert names == row.biases(flags)
        assert all(row.bias_flag(module) == flag for module in names if flag)
    assert row.bias_flag("mlp.no_such_proj") == ""


@pytest.mark.parametrize("family", FAMILIES)
def test_a_norm_adds_its_offset_to_its_weight(tiny: Maker, family: str) -> None:
    row = FAMILIES[family]
    layer = load(str(tiny(family))).model.layers[0]
    states = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    normed = states / (states.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    for name in (*row.attn_norms, *row.ffn_norms):
        norm = layer.get_submodule(name)
        expected = normed * (norm.weight.data + row.norm_offset)
        torch.testing.assert_close(norm(states).detach(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_are_scaled_where_the_row_says_so(tiny: Maker, family: str) -> None:
    model = load(str(tiny(family)))
    tokens = torch.tensor([[5, 9, 5]])
    seen: list[Tensor] = []
    model.model.layers[0].register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(tokens)
    scale = 64**0.5 if FAMILIES[family].scaled_embeddings else 1.0
    torch.testing.assert_close(seen[0], model.get_parameter(EMBED).data[tokens] * scale)


@pytest.mark.parametrize("name", FAMILIES)
def test_stages_hold_every_prunable_module_once(name: str) -> None:
    row = FAMILIES[name]
    modules = [module for stage in row.stages for module in stage]
    assert modules == [*row.qkv, row.o, *row.gate_up, row.down]
    assert len(set(modules)) == len(modules)


def test_a_model_of_unequal_blocks_belongs_to_the_family_it_was_made_from() -> None:
    assert family_of({"model_type": "secateur_qwen3", BASE_KEY: "qwen3"}).name == "qwen3"
    assert family_of({"model_type": "phi3"}).name == "phi3"


@pytest.mark.parametrize(
    "config", [{}, {"model_type": None}, {"model_type": ["llama"]}, {"model_type": "qwen"}]
)
def test_other_families_are_refused_in_one_line(config: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModelError, match=r"not a known family.*; known: gemma2") as caught:
        family_of(config)
    assert "\n" not in str(caught.value)
