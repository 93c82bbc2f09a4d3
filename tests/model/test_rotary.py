"""Rotary frequencies against those of transformers' own models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_models import FAMILIES
from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

from secateur.model.handle import open_model
from secateur.model.rotary import frequencies, rotary_kind, sight, turns
from secateur.model.transformers_model import build_without_weights, transformers_config
from secateur_runtime.errors import UnsupportedModelError

Maker = Callable[..., Path]
SCALED: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 2.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 64},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "longrope": {
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "short_factor": [1.0, 1.5, 2.0, 2.5],
        "long_factor": [2.0, 3.0, 4.0, 5.0],
    },
}


_LENGTHS = {
    "max_position_embeddings": 256,
    "original_max_position_embeddings": 64,
    "pad_token_id": 2,
    "eos_token_id": 2,
    "bos_token_id": 0,
}


def scaled_config(settings: dict[str, Any], family: str = "llama") -> dict[str, Any]:
    """Return the config of a model with these rotary settings."""
    stock = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 384,
    }
    rope = {"rope_theta": 1000.0, **({"partial_rotary_factor": 0.5} if family == "phi3" else {}), **settings}
    return {**stock, "model_type": family, **_LENGTHS, "rope_parameters": rope}


@pytest.mark.parametrize("name", SCALED)
def test_frequencies_are_those_of_transformers_at_every_length(name: str) -> None:
    family, rotary = ("phi3", Phi3RotaryEmbedding) if name == "longrope" else ("llama", LlamaRotaryEmbedding)
    config = transformers_config(scaled_config({"rope_type": name, **SCALED[name]}, family))
    found = frequencies(config)
    for length in (1, 64, 65, 256, 300):
        theirs: Any = rotary(config)
        theirs(torch.zeros(1), torch.arange(length)[None])
        radians, scale = found(length)
        torch.testing.assert_close(radians, theirs.inv_freq, rtol=1e-6, atol=0)
        assert scale == pytest.approx(theirs.attention_scaling)
    if name == "longrope":
        assert not torch.equal(found(64)[0], found(65)[0])


def test_blocks_of_two_kinds_have_frequencies_of_their_own(tiny: Maker) -> None:
    config = transformers_config(open_model(str(tiny("gemma3_text"))).source.config)
    theirs: Any = Gemma3RotaryEmbedding(config)
    kinds = [rotary_kind(config, index) for index in range(6)]
    assert kinds == ["sliding_attention"] * 5 + ["full_attention"]
    for kind in set(kinds):
        torch.testing.assert_close(
            frequencies(config, kind)(9)[0], getattr(theirs, f"{kind}_inv_freq"), rtol=1e-6, atol=0
        )
    assert [sight(config, index) for index in (0, 5)] == [16, 0]


@pytest.mark.parametrize("family", FAMILIES)
def test_windows_and_blocks_without_positions(family: str, tiny: Maker) -> None:
    source = open_model(str(tiny(family))).source
    config, layers = (
        transformers_config(source.config),
        build_without_weights(source.config).get_decoder().layers,
    )
    for index, layer in enumerate(layers):
        # Some classes keep it in the module, where None means that this block sees all, others read it off
        # the config.
        own = getattr(
            layer.self_attn, "sliding_window", getattr(layer.self_attn.config, "sliding_window", None)
        )
        assert sight(config, index) == (own or 0)
        assert turns(config, index) == bool(getattr(layer.self_attn, "use_rope", True))


def test_a_scaling_that_is_not_known() -> None:
    config = transformers_config(scaled_config({"rope_type": "linear", "factor": 2.0}))
    config.rope_parameters["rope_type"] = "spiral"
    with pytest.raises(UnsupportedModelError, match="'spiral'"):
        frequencies(config)
