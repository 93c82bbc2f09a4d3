"""A model's settings as GGUF metadata, refusing those that llama.cpp would silently replace by its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from secateur.export.gguf.layout import Layout
from secateur.export.gguf.rope import Rope
from secateur.model.formats.gguf.loaders import GgufLoader
from secateur_runtime.errors import UnsupportedModelError

_SOFTCAPS = ("attn_logit_softcapping", "final_logit_softcapping")


def model_fields(layout: Layout, settings: Mapping[str, Any], rope: Rope) -> dict[str, Any]:
    """Return metadata of the model itself under full keys.

    `settings` is the whole Hugging Face config, before pruned blocks are left out.

    Raises UnsupportedModelError where llama.cpp's loader has a constant in place of a setting that differs
    here.
    """
    head_dim = max(shape.head_dim for shape in layout.shapes)
    fields: dict[str, Any] = {
        "context_length": context_length(layout.loader, settings),
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
    _check_activation(layout.loader, settings)
    _check_attention_scale(layout, settings, head_dim)
    if layout.loader.no_rope_period:
        _check_rotary_blocks(layout, settings)
    if layout.loader.window_period:
        fields |= _windows(layout, settings)
    fields |= _softcaps(layout.loader, settings)
    return {f"{layout.arch}.{key}": value for key, value in fields.items()}


def context_length(loader: GgufLoader, settings: Mapping[str, Any]) -> int:
    """Return the longest context in which llama.cpp computes what the model does.

    A loader without windows attends to everything, which is the same as a window only as far as that window.
    """
    longest = int(settings["max_position_embeddings"])
    window = settings.get("sliding_window")
    kinds = settings.get("layer_types") or ["sliding_attention"]
    return (
        min(longest, int(window))
        if not loader.window_period and window and "sliding_attention" in kinds
        else longest
    )


def _widths(layout: Layout, sizes: Sequence[int]) -> int | list[int]:
    return list(sizes) if layout.per_block else sizes[0]


def _check_rotary_blocks(layout: Layout, settings: Mapping[str, Any]) -> None:
    period = layout.loader.no_rope_period
    rotary = [bool(settings["no_rope_layers"][index]) for index in layout.alive]
    if rotary != [(index + 1) % period != 0 for index in range(len(rotary))]:
        raise UnsupportedModelError(
            f"not supported because llama.cpp leaves rotary positions out of every {period}th block of"
            f" {layout.arch}, and here others are without: remove layers in groups of {period}"
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


def _softcaps(loader: GgufLoader, settings: Mapping[str, Any]) -> dict[str, float]:
    found = {name: float(settings[name]) for name in _SOFTCAPS if settings.get(name)}
    for name in loader.softcaps:
        if name not in found:
            raise UnsupportedModelError(
                f"not supported because llama.cpp always caps the scores of {loader.name}, and this model has"
                f" no {name}"
            )
    for name in found:
        if name not in (*loader.softcaps, *loader.optional_softcaps):
            raise UnsupportedModelError(
                f"not supported because llama.cpp has no {name} for {loader.name}, and this model has one"
            )
    return found


def _check_activation(loader: GgufLoader, settings: Mapping[str, Any]) -> None:
    used = settings.get("hidden_activation") or settings["hidden_act"]
    fixed = loader.activations
    if used not in fixed:
        raise UnsupportedModelError(
            f"not supported because llama.cpp runs the FFNs of {loader.name} with {fixed[0]}, and this"
            f" model has {used}"
        )


def _check_attention_scale(layout: Layout, settings: Mapping[str, Any], head_dim: int) -> None:
    wanted = settings.get("query_pre_attn_scalar")
    by_hidden = len(layout.shapes) == layout.loader.scalar_from_hidden
    fixed = settings["hidden_size"] // layout.shapes[0].n_heads if by_hidden else head_dim
    if wanted not in (None, fixed):
        raise UnsupportedModelError(
            f"not supported because llama.cpp scales the attention of this model by {fixed} and it needs"
            f" {wanted}"
        )
