"""Biases of zeros at the end of sub-blocks: which families hold them, and that they change nothing."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import Maker

from secateur.model.families import FAMILIES as ROWS
from secateur.model.handle import open_model
from secateur.model.views.output_bias import holds_output_bias, output_module, with_output_biases
from secateur.model.written.reload_check import last_states

TOKENS = torch.arange(24).reshape(2, 12)
# Sub-blocks whose last linear has a bias under some config of transformers.
HOLDING: dict[str, set[str]] = {
    "llama": {"attn", "ffn"},
    "smollm3": {"attn", "ffn"},
    "qwen3": {"attn"},
    "gemma2": {"attn"},
    "gemma3_text": {"attn"},
    "mistral": set(),
    "qwen2": set(),
    "phi3": set(),
}


@pytest.mark.parametrize("family", HOLDING)
def test_families_that_hold_one(family: str) -> None:
    row = ROWS[family]
    assert (output_module(row, "attn"), output_module(row, "ffn")) == ("self_attn.o_proj", "mlp.down_proj")
    found = {part for part in ("attn", "ffn") if holds_output_bias(row, part)}
    assert found == HOLDING[family]


@pytest.mark.parametrize(
    ("family", "parts"), [("llama", ("ffn",)), ("llama", ("attn", "ffn")), ("qwen3", ("attn",))]
)
def test_new_biases_are_zero_and_change_nothing(tiny: Maker, family: str, parts: tuple[str, ...]) -> None:
    model = open_model(str(tiny(family)))
    seen = with_output_biases(model, parts)
    added = seen.source.tensors.keys() - model.source.tensors.keys()
    for block in model.graph.blocks:
        for part in parts:
            assert f"{block.prefix}{output_module(ROWS[family], part)}.bias" in added
    assert set(seen.graph.tensors) == set(seen.source.tensors)
    for name in added:
        assert torch.equal(seen.source.read(name), torch.zeros(seen.source.tensors[name].shape))
        assert torch.equal(torch.cat(list(seen.source.pieces(name))), seen.source.read(name))
    assert seen.digest == model.digest
    torch.testing.assert_close(last_states(seen.stream(), TOKENS), last_states(model.stream(), TOKENS))


def test_a_model_that_has_them_or_cannot_hold_them_stays_as_it_is(tiny: Maker) -> None:
    biased = open_model(str(tiny("llama", attention_bias=True, mlp_bias=True)))
    assert with_output_biases(biased, ("attn", "ffn")) is biased
    qwen = open_model(str(tiny("qwen2")))
    assert with_output_biases(qwen, ("attn", "ffn")) is qwen
