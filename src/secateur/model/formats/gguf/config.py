"""Make a Hugging Face config out of GGUF metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secateur.model.families import FAMILIES, Family, GgufFamily
from secateur.model.formats.gguf.header import GgufHeader
from secateur.model.formats.gguf.rope import ReadFactors, rope_config
from secateur_runtime.errors import SourceError, UnsupportedModelError, UsageError

_COMMON = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
}
# Config key -> where a GGUF file keeps it.
TOKEN_IDS = {
    "bos_token_id": "tokenizer.ggml.bos_token_id",
    "eos_token_id": "tokenizer.ggml.eos_token_id",
    "pad_token_id": "tokenizer.ggml.padding_token_id",
}
_PLAIN_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def stored_family(header: GgufHeader) -> Family:
    """Return the family that a file is read as.

    Raises UnsupportedModelError for an unknown architecture.
    """
    name = header.word("general.architecture")
    families = _by_architecture()
    if name not in families:
        raise UnsupportedModelError(
            f"not supported because GGUF architecture {name!r} is not a known one; known:"
            f" {', '.join(sorted(families))}"
        )
    if header.get(f"{name}.expert_count"):
        raise UnsupportedModelError(f"not supported because this {name} model is a mixture of experts")
    if header.integer("split.count", 1, least=0) > 1:
        raise SourceError(
            f"{header.path} is one part of a split model: join the parts with llama.cpp's `llama-gguf-split"
            " --merge`"
        )
    return families[name]


def _by_architecture() -> dict[str, Family]:
    """Return GGUF architecture -> family; raises UsageError where two families claim one."""
    found: dict[str, Family] = {}
    for name in FAMILIES:
        family = FAMILIES[name]
        if family.gguf is None or family.gguf.read_as:
            continue
        other = found.setdefault(family.gguf.loader.name, family)
        if other is not family:
            raise UsageError(
                f"GGUF architecture {family.gguf.loader.name!r} is claimed by {other.name} and {family.name}:"
                f" uninstall the plug-in of one"
            )
    return found


def gguf_config(header: GgufHeader, family: Family, read_factors: ReadFactors) -> dict[str, Any]:
    """Return the Hugging Face config of a GGUF file that holds a model of `family`.

    read_factors: reads a small tensor by its name in the file, as a list of numbers.
    Raises SourceError or UnsupportedModelError.
    """
    stored = family.in_gguf()
    name = stored.loader.name
    config: dict[str, Any] = {"model_type": family.name, "architectures": [family.architecture]}
    config |= {target: header.integer(f"{name}.{key}") for key, target in _COMMON.items()}
    if config["num_hidden_layers"] > len(header.tensors):
        raise SourceError(
            f"{header.path} announces {config['num_hidden_layers']} blocks and holds {len(header.tensors)}"
            " tensors; get the file again"
        )
    heads = config["num_attention_heads"]
    config["num_key_value_heads"] = header.integer(f"{name}.attention.head_count_kv", heads)
    rotary = f"{name}.rope.dimension_count"
    rotated = stored.loader.permuted and rotary in header
    default = header.integer(rotary) if rotated else config["hidden_size"] // heads
    config["head_dim"] = header.integer(f"{name}.attention.key_length", default)
    config["rms_norm_eps"] = header.number(f"{name}.attention.layer_norm_rms_epsilon")
    config["vocab_size"] = (
        header.tensors["token_embd.weight"].shape[0] if "token_embd.weight" in header.tensors else 0
    )
    config["tie_word_embeddings"] = "output.weight" not in header.tensors
    config["dtype"] = _dtype(header)
    # Set even where the file has none: the default of the class would be an id of another vocabulary.
    config |= {
        key: header.integer(place, least=0) if place in header else None for key, place in TOKEN_IDS.items()
    }
    config |= _biases(header, family) | dict(stored.config) | _attention(header, stored, config)
    return config | rope_config(header, stored, config, read_factors)


def _dtype(header: GgufHeader) -> str:
    kinds = {tensor.type_name for tensor in header.tensors.values() if len(tensor.shape) > 1}
    return _PLAIN_DTYPES.get(kinds.pop(), "float32") if len(kinds) == 1 else "float32"


def _biases(header: GgufHeader, family: Family) -> dict[str, bool]:
    names = family.gguf_names()
    return {
        flag: any(f"blk.0.{names[module]}.bias" in header.tensors for module in modules)
        for flag, modules in (family.bias_flags or {}).items()
    }


def _attention(header: GgufHeader, stored: GgufFamily, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return window, block types, soft caps and attention scale."""
    found: dict[str, Any] = {}
    loader = stored.loader
    blocks = config["num_hidden_layers"]
    window = header.integer(f"{loader.name}.attention.sliding_window", 0, least=0) if stored.window else 0
    if window:
        found["sliding_window"] = window
    if loader.window_period:
        found["layer_types"] = _block_types(header, loader.name, loader.window_period, blocks)
    elif stored.layer_types:
        found["layer_types"] = ["full_attention"] * blocks
    if stored.attention_scale:
        wide = blocks == loader.scalar_from_hidden
        found["query_pre_attn_scalar"] = (
            config["hidden_size"] // config["num_attention_heads"] if wide else config["head_dim"]
        )
    for key, default in loader.softcaps.items():
        found[key] = header.number(f"{loader.name}.{key}", default)
    for key in loader.optional_softcaps:
        if f"{loader.name}.{key}" in header:
            found[key] = header.number(f"{loader.name}.{key}")
    return found


def _block_types(header: GgufHeader, name: str, period: int, blocks: int) -> list[str]:
    key = f"{name}.attention.sliding_window_pattern"
    pattern = header.get(key)
    if not isinstance(pattern, list):
        step = header.integer(key, period)
        pattern = [(index + 1) % step for index in range(blocks)]
    elif len(pattern) != blocks:
        raise SourceError(
            f"{header.path} is not a usable GGUF model: {key!r} does not list {blocks} blocks; get the file"
            " again"
        )
    return ["sliding_attention" if item else "full_attention" for item in pattern]
