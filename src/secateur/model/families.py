"""Model families as data: tensor names, biases, and the layout of fused tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from secateur_runtime.errors import UnsupportedModelError, nearest

EMBED = "model.embed_tokens.weight"
FINAL_NORM = "model.norm.weight"
HEAD = "lm_head.weight"
PREFIX = "model.layers.{}."
# Buffers that old checkpoints carry and every loader recomputes.
RECOMPUTED = ("rotary_emb.inv_freq",)
# How a config with blocks of unequal width names its parent family and its widths.
BASE_KEY = "base_model_type"
SHAPES_KEY = "block_shapes"

_SANDWICH_ATTN = ("input_layernorm", "post_attention_layernorm")
_SANDWICH_FFN = ("pre_feedforward_layernorm", "post_feedforward_layernorm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One decoder family; module names are relative to the block.

    name: `model_type` in the config.
    architecture: class that transformers loads it with.
    attn_norms, ffn_norms: norms of width `hidden_size` that belong to each sub-block.
    qkv: q, k, v, or one module whose rows are all of q, then k, then v.
    gate_up: gate, up, or one module whose rows are all of gate, then up.
    head_norms: norms of width `head_dim`, shared by all heads.
    norm_offset: what a norm adds to its stored weight.
    scaled_embeddings: the model multiplies its embeddings by the square root of `hidden_size`.
    biased: modules that always have a bias.
    bias_flags: config flag -> modules that have a bias when it is true.
    """

    name: str
    architecture: str
    attn_norms: tuple[str, ...] = ("input_layernorm",)
    ffn_norms: tuple[str, ...] = ("post_attention_layernorm",)
    qkv: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    o: str = "self_attn.o_proj"
    gate_up: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    down: str = "mlp.down_proj"
    head_norms: tuple[str, ...] = ()
    norm_offset: float = 0.0
    scaled_embeddings: bool = False
    biased: tuple[str, ...] = ()
    bias_flags: Mapping[str, tuple[str, ...]] | None = None

    @property
    def stages(self) -> tuple[tuple[str, ...], ...]:
        """Prunable modules in the order data reaches them; those of one stage share their input."""
        return (self.qkv, (self.o,), self.gate_up, (self.down,))

    def biases(self, config: Mapping[str, Any]) -> frozenset[str]:
        """Return the modules that have a bias under `config`."""
        flagged = (modules for flag, modules in (self.bias_flags or {}).items() if config.get(flag))
        return frozenset(self.biased).union(*flagged)

    def bias_flag(self, module: str) -> str:
        """Return the config flag that gives a module a bias; empty where there is none."""
        return next((flag for flag, modules in (self.bias_flags or {}).items() if module in modules), "")


_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_ATTENTION_BIAS = {"attention_bias": (*_QKV, "self_attn.o_proj")}
_BOTH_BIASES = {**_ATTENTION_BIAS, "mlp_bias": ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")}
_HEAD_NORMS = ("self_attn.q_norm", "self_attn.k_norm")

_ROWS = (
    Family(name="llama", architecture="LlamaForCausalLM", bias_flags=_BOTH_BIASES),
    Family(name="mistral", architecture="MistralForCausalLM"),
    Family(name="smollm3", architecture="SmolLM3ForCausalLM", bias_flags=_BOTH_BIASES),
    Family(name="qwen2", architecture="Qwen2ForCausalLM", biased=_QKV),
    Family(name="qwen3", architecture="Qwen3ForCausalLM", head_norms=_HEAD_NORMS, bias_flags=_ATTENTION_BIAS),
    Family(
        name="gemma2",
        architecture="Gemma2ForCausalLM",
        norm_offset=1.0,
        scaled_embeddings=True,
        bias_flags=_ATTENTION_BIAS,
        attn_norms=_SANDWICH_ATTN,
        ffn_norms=_SANDWICH_FFN,
    ),
    Family(
        name="gemma3_text",
        architecture="Gemma3ForCausalLM",
        head_norms=_HEAD_NORMS,
        norm_offset=1.0,
        scaled_embeddings=True,
        bias_flags=_ATTENTION_BIAS,
        attn_norms=_SANDWICH_ATTN,
        ffn_norms=_SANDWICH_FFN,
    ),
    Family(
        name="phi3",
        architecture="Phi3ForCausalLM",
        qkv=("self_attn.qkv_proj",),
        gate_up=("mlp.gate_up_proj",),
    ),
)
FAMILIES: Mapping[str, Family] = {row.name: row for row in _ROWS}


def family_of(config: Mapping[str, Any]) -> Family:
    """Return the family of a config; raises UnsupportedModelError with the known families."""
    model_type = config.get(BASE_KEY, config.get("model_type"))
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        hint = nearest(str(model_type), FAMILIES)
        raise UnsupportedModelError(
            f"not supported because model_type {model_type!r} is not a known family{hint}; known:"
            f" {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[model_type]
