"""Make a Hugging Face config out of GGUF metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from secateur.model.families import FAMILIES
from secateur.model.formats.gguf.header import GgufHeader
from secateur.model.formats.gguf.rope import ReadFactors, rope_config
from secateur_runtime.errors import SourceError, UnsupportedModelError

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Arch:
    """What one GGUF architecture leaves unsaid.

    family: `model_type` of the config.
    permuted: the converter interleaved the rows of each q and k head.
    norm_offset: the converter added this to every norm weight.
    window: the attention window is stored and matters.
    typed: the config lists a type per block though all are of full attention.
    period: every `period`-th block is the odd one out (full attention after sliding ones, or no rope).
    softcaps: defaults of the soft caps the family has.
    scalar_from_hidden: number of blocks of the one size whose attention scale comes from hidden_size, not
    from head_dim.
    extra: constants of the config.
    """

    family: str
    permuted: bool = False
    norm_offset: float = 0.0
    window: bool = False
    typed: bool = False
    period: int = 0
    softcaps: Mapping[str, float] | None = None
    scalar_from_hidden: int = 0
    extra: Mapping[str, Any] | None = None


ARCHS: Mapping[str, Arch] = {
    "llama": Arch(family="llama", permuted=True),
    "smollm3": Arch(
        family="smollm3",
        permuted=True,
        typed=True,
        extra={"no_rope_layer_interval": 4, "use_sliding_window": False},
    ),
    "qwen2": Arch(family="qwen2", typed=True, extra={"use_sliding_window": False}),
    "qwen3": Arch(family="qwen3", typed=True, extra={"use_sliding_window": False}),
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
    """Return the architecture of a file.

    Raises UnsupportedModelError for an unknown architecture.
    """
    name = header.word("general.architecture")
    if name not in ARCHS:
        raise UnsupportedModelError(
            f"not supported because GGUF architecture {name!r} is not a known one; known:"
            f" {', '.join(sorted(ARCHS))}"
        )
    if header.get(f"{name}.expert_count"):
        raise UnsupportedModelError(f"not supported because this {name} model is a mixture of experts")
    if header.integer("split.count", 1, least=0) > 1:
        raise SourceError(
            f"{header.path} is one part of a split model: join the parts with llama.cpp's `llama-gguf-split"
            " --merge`"
        )
    return ARCHS[name]


def gguf_config(header: GgufHeader, read_factors: ReadFactors) -> dict[str, Any]:
    """Return the Hugging Face config of a GGUF file.

    read_factors: reads a small tensor by its name in the file, as a list of numbers.
    Raises SourceError or UnsupportedModelError.
    """
    arch = arch_of(header)
    name = header.word("general.architecture")
    config: dict[str, Any] = {
        "model_type": arch.family,
        "architectures": [FAMILIES[arch.family].architecture],
    }
    config |= {target: header.integer(f"{name}.{key}") for key, target in _COMMON.items()}
    if config["num_hidden_layers"] > len(header.tensors):
        raise SourceError(
            f"{header.path} announces {config['num_hidden_layers']} blocks and holds {len(header.tensors)}"
            " tensors; get the file again"
        )
    heads = config["num_attention_heads"]
    config["num_key_value_heads"] = header.integer(f"{name}.attention.head_count_kv", heads)
    rotary = f"{name}.rope.dimension_count"
    default = header.integer(rotary) if arch.permuted and rotary in header else config["hidden_size"] // heads
    config["head_dim"] = header.integer(f"{name}.attention.key_length", default)
    config["rms_norm_eps"] = header.number(f"{name}.attention.layer_norm_rms_epsilon")
    config["vocab_size"] = (
        header.tensors["token_embd.weight"].shape[0] if "token_embd.weight" in header.tensors else 0
    )
    config["tie_word_embeddings"] = "output.weight" not in header.tensors
    config["dtype"] = _dtype(header)
    # Set even where the file has none: the default of the class would be an id of another vocabulary.
    config |= {
        key: header.integer(stored, least=0) if stored in header else None
        for key, stored in TOKEN_IDS.items()
    }
    config |= _biases(header, arch) | dict(arch.extra or {}) | _attention(header, name, arch, config)
    return config | rope_config(header, name, config, read_factors)


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
    window = header.integer(f"{name}.attention.sliding_window", 0, least=0) if arch.window else 0
    if window:
        found["sliding_window"] = window
    if arch.period:
        found["layer_types"] = _block_types(header, name, arch.period, blocks)
        wide = blocks == arch.scalar_from_hidden
        found["query_pre_attn_scalar"] = (
            config["hidden_size"] // config["num_attention_heads"] if wide else config["head_dim"]
        )
    elif arch.typed:
        found["layer_types"] = ["full_attention"] * blocks
    for key, default in (arch.softcaps or {}).items():
        found[key] = header.number(f"{name}.{key}", default)
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
