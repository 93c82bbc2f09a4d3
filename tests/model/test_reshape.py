"""Decoder layers of their own widths, in stock transformers models."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from secateur.model.reshape import Nothing, Same, plain_width, plain_widths, reshape_blocks

NORMS = {"attn": ("input_layernorm",), "ffn": ("post_attention_layernorm",)}
WHOLE = {"n_heads": 4, "n_kv_heads": 2, "head_dim": 8, "intermediate_size": 24}


def make_llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=20,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval()


def test_a_layer_gets_its_own_widths() -> None:
    model = make_llama()
    narrow = {"n_heads": 2, "n_kv_heads": 1, "head_dim": 8, "intermediate_size": 10}
    reshape_blocks(model, [WHOLE, narrow], NORMS)
    first, second = model.model.layers
    assert first.self_attn.q_proj.weight.shape == (32, 32)
    assert second.self_attn.q_proj.weight.shape == (16, 32)
    assert second.self_attn.k_proj.weight.shape == (8, 32)
    assert second.self_attn.o_proj.weight.shape == (32, 16)
    assert second.mlp.down_proj.weight.shape == (32, 10)
    assert model.config.intermediate_size == 24
    assert second.self_attn.layer_idx == 1
    with torch.no_grad():
        assert bool(model(torch.arange(6)[None]).logits.isfinite().all())


def test_a_missing_sub_block_adds_nothing_and_has_no_weights() -> None:
    model = make_llama()
    headless = {**WHOLE, "n_heads": 0, "n_kv_heads": 0}
    reshape_blocks(model, [{**headless, "intermediate_size": 0}, {**WHOLE, "intermediate_size": 0}], NORMS)
    first, second = model.model.layers
    assert not list(first.parameters())
    assert {name.partition(".")[0] for name, _ in second.named_parameters()} == {
        "self_attn",
        "input_layernorm",
    }
    seen: list[torch.Tensor] = []
    first.register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0]))
    second.register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(torch.arange(6)[None])
    assert torch.equal(*seen)


def test_the_stand_ins() -> None:
    hidden = torch.ones(1, 2, 3)
    zeros, weights = Nothing(attention=True)(hidden_states=hidden)
    assert torch.equal(zeros, torch.zeros(1, 2, 3))
    assert weights is None
    assert torch.equal(Nothing(attention=False)(hidden), torch.zeros(1, 2, 3))
    assert Same()(hidden) is hidden


def test_the_width_of_all_heads_for_a_while() -> None:
    config = SimpleNamespace(hidden_size=30, num_attention_heads=4, head_dim=8)
    assert plain_width(vars(config)) == {"hidden_size": 32}
    assert plain_width({"num_attention_heads": 4}) == {}
    with pytest.raises(ValueError, match="stop"), plain_widths(config):
        assert config.hidden_size == 32
        raise ValueError("stop")
    assert config.hidden_size == 30
