"""Rotary settings: what transformers computes from the same config is the reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from secateur.export.gguf.rope import rope_of
from secateur.model.families import FAMILIES
from secateur.model.formats.gguf.loaders import GgufLoader
from secateur_runtime.errors import UnsupportedModelError

LLAMA3: dict[str, Any] = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_theta": 5e5,
}
YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}


def _settings(**parameters: Any) -> dict[str, Any]:
    return {"rope_parameters": parameters, "max_position_embeddings": 256}


def _loader(family: str) -> GgufLoader:
    return FAMILIES[family].in_gguf().loader


def test_llama3_divides_frequencies_as_transformers_does() -> None:
    config = LlamaConfig(hidden_size=64, num_attention_heads=1, head_dim=64, rope_parameters=LLAMA3)
    scaled = LlamaRotaryEmbedding(config).inv_freq.double()
    plain = LLAMA3["rope_theta"] ** -(torch.arange(0, 64, 2, dtype=torch.float64) / 64)
    factors = rope_of(_loader("llama"), _settings(**LLAMA3), 64).factors["rope_freqs.weight"]
    torch.testing.assert_close(torch.tensor(factors, dtype=torch.float64), plain / scaled, rtol=1e-5, atol=0)


def test_plain_and_linear() -> None:
    plain = rope_of(_loader("qwen2"), _settings(rope_theta=1e6, partial_rotary_factor=0.5), 64)
    assert plain.fields == {"rope.freq_base": 1e6, "rope.dimension_count": 32}
    assert not plain.factors
    linear = rope_of(_loader("qwen2"), _settings(rope_theta=1e4, rope_type="linear", factor=2), 64)
    assert linear.fields["rope.scaling.type"] == "linear"
    assert linear.fields["rope.scaling.factor"] == 2.0


def test_blocks_with_a_window_have_a_base_of_their_own() -> None:
    both = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 2e4}}
    fields = rope_of(_loader("gemma3_text"), _settings(**both), 64).fields
    assert (fields["rope.freq_base"], fields["rope.freq_base_swa"]) == (1e6, 2e4)
    both["sliding_attention"] |= {"rope_type": "linear", "factor": 2.0}  # type: ignore[dict-item]
    with pytest.raises(
        UnsupportedModelError, match="no rotary scaling for blocks with a window, and theirs is 'linear'"
    ):
        rope_of(_loader("gemma3_text"), _settings(**both), 64)


def test_longrope_keeps_both_vectors_and_the_scale() -> None:
    """The scale is that of LongRoPE (arXiv:2402.13753): sqrt(1 + ln(ratio) / ln(original))."""
    long = {"rope_type": "longrope", "rope_theta": 1e4, "long_factor": [2, 3], "short_factor": [1, 1.5]}
    settings = _settings(**long) | {"original_max_position_embeddings": 64}
    found = rope_of(_loader("phi3"), settings, 4)
    assert found.factors == {"rope_factors_long.weight": [2.0, 3.0], "rope_factors_short.weight": [1.0, 1.5]}
    assert found.fields["rope.scaling.attn_factor"] == pytest.approx((1 + 2 / 6) ** 0.5), (
        "256 = 64 * 2^2, 64 = 2^6"
    )
    assert found.fields["rope.scaling.original_context_length"] == 64


@pytest.mark.parametrize(
    "more", [{}, {"attention_factor": 1.1386294361119891}, {"mscale": 1.0, "mscale_all_dim": 0.0}]
)
def test_yarn_as_llama_cpp_has_it(more: dict[str, float]) -> None:
    fields = rope_of(_loader("qwen2"), _settings(**YARN, beta_fast=16, **more), 64).fields
    assert fields["rope.scaling.type"] == "yarn"
    assert fields["rope.scaling.original_context_length"] == 64
    assert fields["rope.scaling.yarn_beta_fast"] == 16.0


@pytest.mark.parametrize(
    ("family", "parameters", "message"),
    [
        ("qwen2", {**YARN, "attention_factor": 2.0}, "scales yarn's attention by 1.139, and this model by 2"),
        ("qwen2", {**YARN, "mscale": 0.7, "mscale_all_dim": 0.5}, "and this model by 1.026"),
        ("qwen2", {**YARN, "truncate": False}, "rounds the bounds of yarn's ramp"),
        (
            "llama",
            {"rope_theta": 1e4, "rope_type": "dynamic"},
            "llama loader has no rotary scaling of the kind 'dynamic'",
        ),
        ("qwen3", LLAMA3, "qwen3 loader has no rotary scaling of the kind 'llama3'"),
    ],
)
def test_what_llama_cpp_has_not(family: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message) as raised:
        rope_of(_loader(family), _settings(**parameters), 64)
    assert "\n" not in str(raised.value)
