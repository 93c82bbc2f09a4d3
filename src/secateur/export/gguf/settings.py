"""A model's settings as GGUF metadata, refusing those that llama.cpp would silently replace by its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from secateur.export.gguf.layout import Layout
from secateur.export.gguf.rope import Rope
from secateur.model.formats.gguf.config import ARCHS
from secateur_runtime.errors import UnsupportedModelError

# Blocks of the one size whose attention llama.cpp scales by hidden_size instead of the head width.
_SCALED_BY_HIDDEN = {name: row.scalar_from_hidden for name, row in ARCHS.items() if row.scalar_from_hidden}
# Architectures whose attention llama.cpp windows: those with a period of windowed blocks.
_WINDOWED = tuple(name for name, row in ARCHS.items() if row.period)
_SOFTCAPS = tuple(name for row in ARCHS.values() for name in row.softcaps or ())
# Soft caps that llama.cpp's loader always applies, with a default of its own, and those that it never does.
_ALWAYS_CAPPED = {"gemma2": _SOFTCAPS}
_NEVER_CAPPED = {"gemma3": ("attn_logit_softcapping",)}
_SILU = ("silu", "swish")
_GELU = ("gelu_pytorch_tanh", "gelu_new", "gelu_fast")


def model_fields(layout: Layout, settings: Mapping[str, Any], rope: Rope) -> dict[str, Any]:
    """Return metadata of the model itself under full keys.

    `settings` is the whole Hugging Face config, before pruned blocks are left out.

    Raises UnsupportedModelError where llama.cpp's loader has a constant in place of a setting that differs
    here.
    """
    head_dim = max(shape.head_dim for shape in layout.shapes)
    fields: dict[str, Any] = {
        "context_length": context_length(layout.arch, settings),
        "embedding_length": settings["hidden_size"],
        "block_count": len(layout.shapes),
        "feed_forward_length": _widths(layout, [shape.intermediate_size for shape in layout.shapes]),
        "attention.head_count": _widths(layout, [shape.n_heads for shape in layout.shapes]),
        "attention.head_count_kv": _widths(layout, [shape.n_kv_heads for shape in layout.shapes]),
        "attention.layer_norm_rms_epsilon": float(settings["rms_norm_eps"]),
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "vocab_size": settings["vocab_size"],
        **rope.fields,
    }
    _check_activation(layout.arch, settings)
    if layout.arch == "smollm3":
        _check_rotary_blocks(layout, settings)
    if layout.arch in _WINDOWED:
        fields |= _windows(layout, settings) | _softcaps(layout.arch, settings)
        _check_attention_scale(layout, settings, head_dim)
    return {f"{layout.arch}.{key}": value for key, value in fields.items()}


def context_length(arch: str, settings: Mapping[str, Any]) -> int:
    """Return the longest context in which llama.cpp computes what the model does.

    Its loaders of all families but Gemma attend to everything, which is the same as a window only as far as
    that window.
    """
    longest = int(settings["max_position_embeddings"])
    window = settings.get("sliding_window")
    kinds = settings.get("layer_types") or ["sliding_attention"]
    return (
        min(longest, int(window))
        if arch not in _WINDOWED and window and "sliding_attention" in kinds
        else longest
    )


def _widths(layout: Layout, sizes: Sequence[int]) -> int | list[int]:
    return list(sizes) if layout.arch in ("deci", "openelm") else sizes[0]


def _check_rotary_blocks(layout: Layout, settings: Mapping[str, Any]) -> None:
    rotary = [bool(settings["no_rope_layers"][index]) for index in layout.alive]
    if rotary != [(index + 1) % 4 != 0 for index in range(len(rotary))]:
        raise UnsupportedModelError(
            "not supported because llama.cpp leaves rotary positions out of every fourth block of SmolLM3,"
            " and here others are without: remove layers in fours"
        )


def _windows(layout: Layout, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the window and the period of its pattern."""
    sliding = [settings["layer_types"][index] == "sliding_attention" for index in layout.alive]
    blocks = range(len(sliding))
    # A period beyond the last block is a window everywhere.
    period = next(
        (
            step
            for step in range(1, len(sliding) + 2)
            if sliding == [(index + 1) % step != 0 for index in blocks]
        ),
        None,
    )
    if period is None:
        raise UnsupportedModelError(
            "not supported because llama.cpp needs full attention in every n-th block, and the removed layers"
            " broke that: remove whole periods of layers"
        )
    return {
        "attention.sliding_window": settings["sliding_window"],
        "attention.sliding_window_pattern": period,
    }


def _softcaps(arch: str, settings: Mapping[str, Any]) -> dict[str, float]:
    found = {name: float(settings[name]) for name in _SOFTCAPS if settings.get(name)}
    for name in _ALWAYS_CAPPED.get(arch, ()):
        if name not in found:
            raise UnsupportedModelError(
                f"not supported because llama.cpp always caps the scores of {arch}, and this model has"
                f" no {name}"
            )
    for name in _NEVER_CAPPED.get(arch, ()):
        if name in found:
            raise UnsupportedModelError(
                f"not supported because llama.cpp has no {name} for {arch}, and this model has one"
            )
    return found


def _check_activation(arch: str, settings: Mapping[str, Any]) -> None:
    used = settings.get("hidden_activation") or settings["hidden_act"]
    fixed = _GELU if arch in _WINDOWED else _SILU
    if used not in fixed:
        raise UnsupportedModelError(
            f"not supported because llama.cpp runs the FFNs of {arch} with {fixed[0]}, and this"
            f" model has {used}"
        )


def _check_attention_scale(layout: Layout, settings: Mapping[str, Any], head_dim: int) -> None:
    by_hidden = len(layout.shapes) == _SCALED_BY_HIDDEN[layout.arch]
    fixed = settings["hidden_size"] // layout.shapes[0].n_heads if by_hidden else head_dim
    if settings["query_pre_attn_scalar"] != fixed:
        raise UnsupportedModelError(
            f"not supported because llama.cpp scales the attention of this model by {fixed} and it needs"
            f" {settings['query_pre_attn_scalar']}"
        )
