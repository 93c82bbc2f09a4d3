"""Make a Hugging Face config out of GGUF metadata."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from secateur.core.errors import SourceError, UnsupportedModelError
from secateur.model.families import FAMILIES
from secateur.model.gguf_header import GgufHeader
from secateur.model.gguf_rope import ReadFactors, rope_config

_COMMON = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
_TOKENS = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "padding_token_id": "pad_token_id"}
_PLAIN_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arch:
    """What one GGUF architecture leaves unsaid.

    family: `model_type` of the config.
    permuted: the converter interleaved the rows of each q and k head.
    norm_offset: the converter added this to every norm weight.
    window: the attention window is stored and matters.
    period: every `period`-th block is the odd one out (full attention after sliding ones, or no rope).
    softcaps: defaults of the soft caps the family has.
    scalar_from_hidden: number of blocks of the one size whose attention scale is taken from hidden_size, not head_dim.
    extra: constants of the config.
    """

    family: str
    permuted: bool = False
    norm_offset: float = 0.0
    window: bool = False
    period: int = 0
    softcaps: Mapping[str, float] | None = None
    scalar_from_hidden: int = 0
    extra: Mapping[str, Any] | None = None


ARCHS: Mapping[str, Arch] = {
    "llama": Arch(family="llama", permuted=True),
    "smollm3": Arch(family="smollm3", permuted=True, extra={"no_rope_layer_interval": 4, "use_sliding_window": False}),
    "qwen2": Arch(family="qwen2", extra={"use_sliding_window": False}),
    "qwen3": Arch(family="qwen3", extra={"use_sliding_window": False}),
    "gemma2": Arch(
        family="gemma2",
        norm_offset=1.0,
        window=True,
        period=2,
        softcaps={"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        scalar_from_hidden=46,
    ),
    "gemma3": Arch(family="gemma3_text", norm_offset=1.0, window=True, period=6, scalar_from_hidden=62),
    "phi3": Arch(family="phi3", window=True),
}


def arch_of(header: GgufHeader) -> Arch:
    """Return how this file was converted; raises UnsupportedModelError for an architecture that is not known."""
    name = header.require("general.architecture")
    if name not in ARCHS:
        raise UnsupportedModelError(f"not supported because GGUF architecture {name!r} is not a known one; known: {', '.join(sorted(ARCHS))}")
    if header.get(f"{name}.expert_count"):
        raise UnsupportedModelError(f"not supported because this {name} model is a mixture of experts")
    if header.get("split.count", 1) > 1:
        raise SourceError(f"{header.path} is one part of a split model: join the parts with llama.cpp's `llama-gguf-split --merge`")
    return ARCHS[name]


def gguf_config(header: GgufHeader, read_factors: ReadFactors) -> dict[str, Any]:
    """Return the config dict of a GGUF file; `read_factors` reads a small tensor as numbers. Raises SourceError, UnsupportedModelError."""
    arch, name = arch_of(header), str(header.require("general.architecture"))
    config: dict[str, Any] = {"model_type": arch.family, "architectures": [FAMILIES[arch.family].architecture]}
    for key, target in _COMMON.items():
        config[target] = _number(header, f"{name}.{key}")
    heads = config["num_attention_heads"]
    config["num_key_value_heads"] = _number(header, f"{name}.attention.head_count_kv", heads)
    default = header.get(f"{name}.rope.dimension_count") if arch.permuted else None
    config["head_dim"] = _number(header, f"{name}.attention.key_length", default or config["hidden_size"] // heads)
    config["vocab_size"] = header.tensors["token_embd.weight"].shape[0] if "token_embd.weight" in header.tensors else 0
    config["tie_word_embeddings"] = "output.weight" not in header.tensors
    config["dtype"] = _dtype(header)
    config |= {target: header.get(f"tokenizer.ggml.{key}") for key, target in _TOKENS.items() if f"tokenizer.ggml.{key}" in header}
    config |= _biases(header, arch) | dict(arch.extra or {}) | _attention(header, name, arch, config)
    return config | rope_config(header, name, config, read_factors)


def _number(header: GgufHeader, key: str, default: Any = None) -> Any:
    value = header.get(key, default)
    if isinstance(value, list):
        if not value or any(item != value[0] for item in value):
            raise UnsupportedModelError(f"not supported because {key!r} differs between blocks: prune from the original model instead")
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise SourceError(f"{header.path} is not a usable GGUF model: {key!r} is {value!r}; get the file again")
    return value


def _dtype(header: GgufHeader) -> str:
    kinds = {tensor.type_name for tensor in header.tensors.values() if len(tensor.shape) > 1}
    return _PLAIN_DTYPES.get(kinds.pop(), "float32") if len(kinds) == 1 else "float32"


def _biases(header: GgufHeader, arch: Arch) -> dict[str, bool]:
    flags = FAMILIES[arch.family].bias_flags or {}
    marks = {"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_up.bias"}
    return {flag: marks[flag] in header.tensors for flag in flags}


def _attention(header: GgufHeader, name: str, arch: Arch, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return window, block types, soft caps and attention scale."""
    found: dict[str, Any] = {}
    blocks = config["num_hidden_layers"]
    if arch.window and header.get(f"{name}.attention.sliding_window"):
        found["sliding_window"] = header.get(f"{name}.attention.sliding_window")
    if arch.period:
        found["layer_types"] = _block_types(header, name, arch.period, blocks)
        wide = blocks == arch.scalar_from_hidden
        found["query_pre_attn_scalar"] = config["hidden_size"] // config["num_attention_heads"] if wide else config["head_dim"]
    elif FAMILIES[arch.family].name in ("qwen2", "qwen3", "smollm3"):
        found["layer_types"] = ["full_attention"] * blocks
    for key, default in (arch.softcaps or {}).items():
        found[key] = header.get(f"{name}.{key}", default)
    return found


def _block_types(header: GgufHeader, name: str, period: int, blocks: int) -> list[str]:
    pattern = header.get(f"{name}.attention.sliding_window_pattern", period)
    sliding = pattern if isinstance(pattern, list) else [(index + 1) % pattern for index in range(blocks)]
    return ["sliding_attention" if item else "full_attention" for item in sliding]
