"""Error: sub-blocks keep more weights where pruning them changes their block's output more."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import groupby

import torch
from torch import Tensor

from secateur.allocate import Scorer, allocation, settle
from secateur.core.graph import Linear
from secateur.tensors.layer_stream import LiveBlock
from secateur.tensors.stats import LinearStats

_OFFSETS = (-0.15, 0.0, 0.15)
_STEPS = 400


@allocation("error", needs={"input_sq"})
class Error:
    """Minimise the sum of measured relative errors of the block outputs.

    Each attention and each FFN is pruned on its own at three ratios around the budget, by the lowest `|W| *
    sqrt(mean x²)`, and the block's output compared with the dense one, token by token. Between the ratios the
    logarithm of the error is taken as linear; the budget goes where one more zero costs least.
    """

    def __init__(self, budget: float, scorer: Scorer) -> None:
        self._budget = budget
        self._grid = tuple(min(max(budget + offset, 0.02), 0.98) for offset in _OFFSETS)
        self._curves: dict[tuple[str, ...], tuple[float, ...]] = {}
        self._sizes: dict[str, int] = {}

    def observe(
        self, block: LiveBlock, linears: tuple[Linear, ...], stats: Mapping[str, LinearStats], hidden: Tensor
    ) -> None:
        """Measure one block on `hidden`, `[windows, tokens, hidden_size]`; its weights are restored."""
        dense = block(hidden)
        for _, members in groupby(linears, key=lambda linear: linear.stage < 2):
            unit = tuple(members)
            kept = {linear.tensor: block.weight(linear.tensor).clone() for linear in unit}
            errors = []
            for ratio in self._grid:
                for linear in unit:
                    weight = block.weight(linear.tensor)
                    weight.copy_(_without_lowest(kept[linear.tensor], stats[linear.tensor], ratio))
                errors.append(_relative_error(block(hidden), dense))
            for name, weight in kept.items():
                block.weight(name).copy_(weight)
                self._sizes[name] = weight.numel()
            self._curves[tuple(kept)] = tuple(errors)

    def ratios(self) -> dict[str, float]:
        """Return the ratios of least total error."""
        low = 1e-16
        high = 1e4
        for _ in range(80):
            price = math.sqrt(low * high)
            wanted = self._at(price)
            mean = sum(self._sizes[name] * ratio for name, ratio in wanted.items()) / sum(
                self._sizes.values()
            )
            low, high = (price, high) if mean < self._budget else (low, price)
        return settle(self._at(high), self._sizes, self._budget)

    def _at(self, price: float) -> dict[str, float]:
        """Return the best ratios where each pruned weight earns `price`."""
        ratios: dict[str, float] = {}
        candidates = [
            self._grid[0] + (self._grid[-1] - self._grid[0]) * step / _STEPS for step in range(_STEPS + 1)
        ]
        for names, errors in self._curves.items():
            size = sum(self._sizes[name] for name in names) / 1e6
            best = min(
                candidates, key=lambda ratio: _interpolated(self._grid, errors, ratio) - price * size * ratio
            )
            ratios |= dict.fromkeys(names, best)
        return ratios


def _without_lowest(weight: Tensor, stats: LinearStats, ratio: float) -> Tensor:
    score = (weight.abs() * stats.input_sq.sqrt()).flatten()
    count = int(ratio * score.numel())
    return weight if not count else weight * (score > score.kthvalue(count).values).view_as(weight)


def _relative_error(output: Tensor, dense: Tensor) -> float:
    """Return the mean over tokens of the squared change relative to the squared state.

    Tokens with massive states do not dominate it.
    """
    return float(
        (
            (output - dense).square().sum(-1)
            / dense.square().sum(-1).clamp_min(torch.finfo(dense.dtype).tiny)
        ).mean()
    )


def _interpolated(grid: tuple[float, ...], errors: tuple[float, ...], ratio: float) -> float:
    index = max(0, min(len(grid) - 2, sum(ratio > point for point in grid) - 1))
    left = math.log(errors[index] + 1e-30)
    right = math.log(errors[index + 1] + 1e-30)
    share = (ratio - grid[index]) / max(grid[index + 1] - grid[index], 1e-9)
    return math.exp(left + share * (right - left))
