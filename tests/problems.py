"""Pruning problems that tests share."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.core.stats import LinearStats


def make_stats(inputs: Tensor, outputs: Tensor | None = None) -> LinearStats:
    """Return the moments of `inputs` (`[tokens, in_features]`) and of dense `outputs` (`[tokens, out_features]`)."""
    tokens = len(inputs)
    cross = None if outputs is None else outputs.T @ inputs / tokens
    return LinearStats(tokens, inputs.square().mean(0), inputs.mean(0), inputs.T @ inputs / tokens, cross)


def make_problem(rows: int, width: int, seed: int = 0, *, cross: bool = False) -> tuple[Tensor, LinearStats]:
    """Return a weight and the statistics of inputs that correlate, some features much larger than the rest.

    With `cross` the inputs are a noisy copy of those the dense outputs were made from.
    """
    generator = torch.Generator().manual_seed(seed)
    rank = max(width // 4, 1)
    mixing = torch.randn(rank, width, generator=generator) / rank**0.5
    clean = torch.randn(8 * width, rank, generator=generator) @ mixing + 0.4 * torch.randn(8 * width, width, generator=generator)
    clean[:, :: max(width // 3, 1)] *= 6
    weight = torch.randn(rows, width, generator=generator)
    if not cross:
        return weight, make_stats(clean)
    return weight, make_stats(clean + 0.1 * torch.randn(clean.shape, generator=generator), clean @ weight.T)
