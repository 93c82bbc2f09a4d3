"""Settings as metadata: what is read back is the config, and what llama.cpp would replace is refused."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conftest import Maker

from secateur.export.gguf.description import naming_of, whole_settings
from secateur.export.gguf.layout import lay_out
from secateur.export.gguf.rope import Rope
from secateur.export.gguf.settings import context_length, model_fields
from secateur.model.families import FAMILIES
from secateur.model.formats.gguf.loaders import GgufLoader
from secateur.model.handle import open_model
from secateur_runtime.errors import UnsupportedModelError


def _fields(folder: object, **changed: Any) -> dict[str, Any]:
    model = open_model(str(folder))
    settings = whole_settings(model) | changed
    return model_fields(lay_out(model.graph, naming_of(model)), settings, Rope({"rope.freq_base": 1e4}))


def _loader(family: str) -> GgufLoader:
    return FAMILIES[family].in_gguf().loader


def test_widths_and_lengths(tiny: Maker) -> None:
    fields = _fields(tiny("qwen3"))
    wanted = {
        "context_length": 256,
        "embedding_length": 64,
        "block_count": 3,
        "feed_forward_length": 96,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": 32,
        "attention.value_length": 32,
        "vocab_size": 384,
        "rope.freq_base": 1e4,
    }
    assert wanted.items() <= {key.removeprefix("qwen3."): value for key, value in fields.items()}.items()
    assert all(key.startswith("qwen3.") for key in fields)


def test_windows_and_soft_caps(tiny: Maker) -> None:
    fields = _fields(tiny("gemma2"), attn_logit_softcapping=7, final_logit_softcapping=9)
    assert fields["gemma2.attn_logit_softcapping"] == 7.0
    assert fields["gemma2.final_logit_softcapping"] == 9.0
    assert fields["gemma2.attention.sliding_window"] == 16
    assert fields["gemma2.attention.sliding_window_pattern"] == 2
    assert _fields(tiny("gemma3_text"))["gemma3.attention.sliding_window_pattern"] == 6


@pytest.mark.parametrize(
    ("family", "changed", "message"),
    [
        (
            "gemma2",
            {"attn_logit_softcapping": None},
            "always caps the scores of gemma2.*no attn_logit_softcapping$",
        ),
        ("gemma2", {"final_logit_softcapping": None}, "this model has no final_logit_softcapping$"),
        ("gemma3_text", {"attn_logit_softcapping": 5.0}, "has no attn_logit_softcapping for gemma3"),
        ("gemma2", {"hidden_activation": "silu"}, "the FFNs of gemma2 with gelu_pytorch_tanh, .* has silu"),
        ("llama", {"hidden_act": "gelu"}, "the FFNs of llama with silu, and this model has gelu"),
        ("gemma2", {"query_pre_attn_scalar": 64}, "attention of this model by 32 and it needs 64"),
        (
            "gemma2",
            {"layer_types": ["full_attention", "full_attention", "sliding_attention"]},
            "whole periods",
        ),
        ("smollm3", {"no_rope_layers": [1, 1, 0, 1]}, "every 4th block of smollm3, .* in groups of 4"),
    ],
)
def test_what_llama_cpp_would_replace(
    tiny: Maker, family: str, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnsupportedModelError, match=message) as raised:
        _fields(tiny(family), **changed)
    assert "\n" not in str(raised.value)


def test_a_window_that_the_loader_has_not_bounds_the_context() -> None:
    settings = {"max_position_embeddings": 256, "sliding_window": 16}
    assert context_length(_loader("llama"), settings) == 16
    assert context_length(_loader("gemma2"), settings) == 256
    assert context_length(_loader("llama"), settings | {"sliding_window": None}) == 256
    assert context_length(_loader("qwen2"), settings | {"layer_types": ["full_attention"]}) == 256
