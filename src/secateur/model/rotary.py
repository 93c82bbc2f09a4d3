"""Positions in a model: rotary frequencies, the blocks that use them, and attention windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from secateur_runtime.errors import UnsupportedModelError

LENGTHENED = ("dynamic", "longrope")
"""Rotary embeddings whose frequencies depend on the length of the text."""
Frequencies = Callable[[int], tuple[Tensor, float]]
"""Number of tokens of a text -> radians per position of each pair of channels, `[pairs]`, and the scale of
cosines and sines.
"""


def turns(config: Any, index: int) -> bool:
    """Return whether block `index` has a rotary embedding; 1 in the list of transformers means yes."""
    flags = getattr(config, "no_rope_layers", None)
    return bool(flags[index]) if flags else True


def sight(config: Any, index: int) -> int:
    """Return the attention window of block `index`, the current position included; 0 for no window."""
    seen = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    return int(seen) if seen and (kinds is None or kinds[index] == "sliding_attention") else 0


def rotary_kind(config: Any, index: int) -> str:
    """Return the name of the rotary embedding of block `index`; empty where all blocks have the same."""
    return str(config.layer_types[index]) if _differ(config) else ""


def rotary_type(config: Any, kind: str = "") -> str:
    """Return how the frequencies of a rotary embedding are scaled, as transformers names it."""
    return str(_settings(config, kind).get("rope_type", "default"))


def frequencies(config: Any, kind: str = "") -> Frequencies:
    """Return the frequencies of a rotary embedding.

    Raises UnsupportedModelError for an unknown scaling.
    """
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    settings = _settings(config, kind)
    name = rotary_type(config, kind)
    options = {"layer_type": kind} if kind else {}
    if name == "default":
        plain = _unscaled(config, settings), 1.0
        return lambda length: plain
    if name not in ROPE_INIT_FUNCTIONS:
        raise UnsupportedModelError(
            f"not supported because its rotary scaling is {name!r}; known: default,"
            f" {', '.join(ROPE_INIT_FUNCTIONS)}"
        )
    made: Any = ROPE_INIT_FUNCTIONS[name]
    if name == "dynamic":
        return lambda length: made(
            config, "cpu", seq_len=max(length, config.max_position_embeddings), **options
        )
    if name == "longrope":
        most = int(settings["original_max_position_embeddings"])
        short, long = (made(config, "cpu", seq_len=length, **options) for length in (most, most + 1))
        return lambda length: long if length > most else short
    scaled: tuple[Tensor, float] = made(config, "cpu", **options)
    return lambda length: scaled


def _unscaled(config: Any, settings: dict[str, Any]) -> Tensor:
    width = int(config.head_dim * settings.get("partial_rotary_factor", 1.0))
    base = float(settings["rope_theta"])
    return torch.ones(()) / (base ** (torch.arange(0, width, 2, dtype=torch.float) / width))


def _settings(config: Any, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = config.rope_parameters[kind] if kind else config.rope_parameters
    return found


def _differ(config: Any) -> bool:
    return all(isinstance(value, dict) for value in config.rope_parameters.values())
