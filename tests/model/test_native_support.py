"""What the C kernels run, what they refuse, and the names that they use."""

from __future__ import annotations

from typing import Any

import pytest

from secateur.model.families import FAMILIES
from secateur.model.native_support import check_native, native_names, runs_natively
from secateur.model.transformers_model import transformers_config
from secateur_runtime.errors import UnsupportedModelError

SIZES = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
}
LINEARS = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


def config_of(family: str, **changes: Any) -> Any:
    return transformers_config({"model_type": family, **SIZES, **changes})


@pytest.mark.parametrize("family", FAMILIES)
def test_only_blocks_as_those_of_llama_run(family: str) -> None:
    """Gemma has more norms and scales its embeddings; Phi-3 fuses its linears."""
    row = FAMILIES[family]
    if family in ("gemma2", "gemma3_text", "phi3"):
        assert not runs_natively(row)
        with pytest.raises(UnsupportedModelError, match=rf"runs llama, .* and MODEL is {family}: use"):
            check_native("MODEL", row, config_of(family))
    else:
        assert runs_natively(row)
        check_native("MODEL", row, config_of(family))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, "no activation 'gelu', which MODEL has"),
        (
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            "no rotary embedding of the kind 'dynamic', which MODEL has",
        ),
    ],
)
def test_what_the_kernels_lack_is_named_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message) as caught:
        check_native("MODEL", FAMILIES["llama"], config_of("llama", **changes))
    assert "--backend torch" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_of_a_block() -> None:
    expected = {f"model.layers.3.{module}.weight": name for name, module in LINEARS.items()}
    expected |= {f"model.layers.3.{module}.bias": f"{name}_bias" for name, module in LINEARS.items()}
    expected |= {
        "model.layers.3.input_layernorm.weight": "attn_norm",
        "model.layers.3.post_attention_layernorm.weight": "ffn_norm",
    }
    assert native_names(FAMILIES["llama"], "model.layers.3.") == expected
    heads = {
        "model.layers.3.self_attn.q_norm.weight": "q_norm",
        "model.layers.3.self_attn.k_norm.weight": "k_norm",
    }
    assert native_names(FAMILIES["qwen3"], "model.layers.3.") == expected | heads
