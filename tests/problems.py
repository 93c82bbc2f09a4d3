"""Pruning problems that tests share."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.core.graph import Group, Slice
from secateur.tensors.stats import LinearStats
from secateur.tensors.unit_view import UnitView


def make_stats(inputs: Tensor, outputs: Tensor | None = None) -> LinearStats:
    """Return the moments of the inputs of a linear.

    inputs: `[tokens, in_features]`. outputs: of the dense model, `[tokens, out_features]`.
    """
    tokens = len(inputs)
    cross = None if outputs is None else outputs.T @ inputs / tokens
    # two windows of equal length
    sizes = (
        inputs.abs().unflatten(0, (2, -1)).mean(1) if tokens % 2 == 0 else inputs.abs().mean(0, keepdim=True)
    )
    size = sizes.square().mean(0).sqrt()
    return LinearStats(
        tokens, inputs.square().mean(0), inputs.mean(0), inputs.T @ inputs / tokens, cross, input_abs=size
    )


def make_problem(rows: int, width: int, seed: int = 0, *, cross: bool = False) -> tuple[Tensor, LinearStats]:
    """Return a weight and the statistics of inputs that correlate, some features much larger than the rest.

    With `cross` the inputs are a noisy copy of those the dense outputs were made from.
    """
    generator = torch.Generator().manual_seed(seed)
    rank = max(width // 4, 1)
    mixing = torch.randn(rank, width, generator=generator) / rank**0.5
    clean = torch.randn(8 * width, rank, generator=generator) @ mixing + 0.4 * torch.randn(
        8 * width, width, generator=generator
    )
    clean[:, :: max(width // 3, 1)] *= 6
    weight = torch.randn(rows, width, generator=generator)
    if not cross:
        return weight, make_stats(clean)
    return weight, make_stats(clean + 0.1 * torch.randn(clean.shape, generator=generator), clean @ weight.T)


_ROWS = (Slice("gate", 0), Slice("gate.bias", 0), Slice("up", 0))
GROUPS: dict[str, Group] = {
    "ffn": Group("0.ffn", "ffn", 12, (*_ROWS, Slice("down", 1))),
    "fused ffn": Group(
        "0.ffn", "ffn", 12, (Slice("gate_up", 0), Slice("gate_up", 0, 1, 12), Slice("down", 1))
    ),
    "kv": Group(
        "0.kv",
        "kv",
        3,
        (Slice("q", 0, 8), Slice("q.bias", 0, 8), Slice("k", 0, 4), Slice("v", 0, 4), Slice("o", 1, 8)),
    ),
    "fused kv": Group(
        "0.kv",
        "kv",
        3,
        (Slice("qkv", 0, 8), Slice("qkv", 0, 4, 24), Slice("qkv", 0, 4, 36), Slice("o", 1, 8)),
    ),
    "head": Group("0.head", "head", 6, (Slice("q", 0, 4), Slice("q.bias", 0, 4), Slice("o", 1, 4))),
    "hidden": Group(
        "hidden",
        "hidden",
        8,
        tuple(
            Slice(name, 0 if name in ("norm", "o", "down") else 1)
            for name in ("embed", "norm", "q", "k", "v", "o", "gate", "up", "down")
        ),
    ),
}
_SHAPES = {
    "gate": (12, 8),
    "gate.bias": (12,),
    "up": (12, 8),
    "gate_up": (24, 8),
    "down": (8, 12),
    "q": (24, 8),
    "q.bias": (24,),
    "k": (12, 8),
    "v": (12, 8),
}
_SHAPES |= {"qkv": (48, 8), "o": (8, 24), "embed": (11, 8), "norm": (8,)}
_INPUTS = {
    name: place
    for place, names in enumerate((("q", "k", "v", "qkv"), ("o",), ("gate", "up", "gate_up"), ("down",)))
    for name in names
}


def make_view(layout: str, seed: int = 0) -> UnitView:
    """Return a random group of a layout of `GROUPS`, with weights, gradients and input statistics."""
    generator = torch.Generator().manual_seed(seed)
    group = GROUPS[layout]
    weights = {part.tensor: torch.randn(_SHAPES[part.tensor], generator=generator) for part in group.slices}
    gradients = {name: torch.randn(weight.shape, generator=generator) for name, weight in weights.items()}
    by_stage = [make_problem(1, width, seed * 4 + place)[1] for place, width in enumerate((8, 24, 8, 12))]
    stats = {name: by_stage[_INPUTS[name]] for name in weights if name in _INPUTS}
    return UnitView(group, weights, stats, gradients, seed)


def reorder(view: UnitView, order: Tensor) -> UnitView:
    """Return the same group with unit `order[i]` in the place of unit `i`."""
    weights, gradients, stats = dict(view.weights), dict(view.gradients), dict(view.stats)
    moved: dict[int, LinearStats] = {}
    for part in view.group.slices:
        place = torch.arange(weights[part.tensor].shape[part.dim])
        own = slice(part.offset, part.offset + view.group.size * part.block)
        place[own] = place[own].view(view.group.size, part.block)[order].flatten()
        weights[part.tensor] = weights[part.tensor].index_select(part.dim, place)
        gradients[part.tensor] = gradients[part.tensor].index_select(part.dim, place)
        if part.dim == 1 and part.tensor in stats:
            before = stats[part.tensor]
            stats[part.tensor] = moved.setdefault(id(before), _reorder_stats(before, place))
    return UnitView(view.group, weights, stats, gradients, view.seed)


def _reorder_stats(stats: LinearStats, place: Tensor) -> LinearStats:
    assert stats.gram is not None
    assert stats.input_abs is not None
    return LinearStats(
        stats.tokens,
        stats.input_sq[place],
        stats.input_mean[place],
        stats.gram[place][:, place],
        input_abs=stats.input_abs[place],
    )
