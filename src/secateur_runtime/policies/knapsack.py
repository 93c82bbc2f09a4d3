"""The cheapest set of steps that makes the model fit, on the assumption that prices add up.

Exact, unlike the greedy ones of `secateur.allocate`: a decision weighs few steps, by two sizes (weights and
cache) whose exchange rate changes with every request, and looks them up in tables that are made once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secateur_runtime.ladder_costs import Floats
from secateur_runtime.policies import Choices, Decision, Observation, Policy, policy

MOST = 20_000
"""Most combinations after each sub-block; beyond that, sizes are rounded down, so the choice still fits."""


@policy("knapsack", levels=False)
def knapsack(choices: Choices, file: Path | None) -> Policy:
    """Take the set of steps with the smallest sum of prices that frees enough, or all steps if none does."""
    return Knapsack(choices)


class Knapsack:
    """Every useful combination of steps, computed once: of sub-blocks with a cache, and of those without.

    A decision looks up, for each combination of the former, the cheapest match among the latter; this is
    exact. Where sizes differ so much that there are too many combinations, sizes are rounded down.
    """

    def __init__(self, choices: Choices) -> None:
        self._choices = choices
        cached = [chain for chain in choices.chains if choices.freed_cache[list(chain)].any()]
        self._attention = combine(choices, cached)
        self._ffn = combine(choices, [chain for chain in choices.chains if chain not in cached])
        self._cheapest = _cheapest_at_least(self._ffn)

    def __call__(self, seen: Observation) -> Decision:
        """Return the cheapest set that fits."""
        return self.for_all([seen])

    def for_all(self, moments: Sequence[Observation]) -> Decision:
        """Return the cheapest set that fits at every moment, with the bytes it needs at the first."""
        missing = [self._choices.missing(seen) for seen in moments]
        if max(missing) <= 0:
            return self._choices.decide((), moments[0])
        attention = self._attention
        ffn = self._ffn
        last = len(self._cheapest) - 1
        rest = attention.rest(missing[0], moments[0])
        for seen, lacking in zip(moments[1:], missing[1:], strict=True):
            rest = np.maximum(rest, attention.rest(lacking, seen))
        place = np.searchsorted(ffn.weights, rest)
        total = np.where(
            place <= last, attention.prices + ffn.prices[self._cheapest[np.minimum(place, last)]], np.inf
        )
        best = int(total.argmin())
        if not np.isfinite(total[best]):
            return self._choices.decide(range(len(self._choices.units)), moments[0])
        return self._choices.decide(
            (*attention.steps(best), *ffn.steps(int(self._cheapest[place[best]]))), moments[0]
        )


@dataclass(frozen=True)
class Combined:
    """Combinations of steps, in the order of the weight bytes they free.

    weights, cache, prices: bytes of weights, bytes of cache per position and price of each combination.
    stages: for each chain, the parent combination and the number of its steps in each combination.
    """

    weights: Floats
    cache: Floats
    prices: Floats
    stages: Sequence[tuple[NDArray[np.int64], NDArray[np.int64], tuple[int, ...]]]

    def rest(self, missing: float, seen: Observation) -> Floats:
        """Return the bytes that are still missing after each combination."""
        return missing - self.weights - self.cache * seen.positions

    def steps(self, index: int) -> list[int]:
        """Return the steps of a combination."""
        found: list[int] = []
        for parents, lengths, chain in reversed(self.stages):
            found += chain[: lengths[index]]
            index = int(parents[index])
        return found


def combine(choices: Choices, chains: Sequence[tuple[int, ...]], most: int = MOST) -> Combined:
    """Return the useful combinations of the steps of `chains`, at most about `most`.

    Of combinations that free the same bytes only the cheapest is retained.
    """
    held = Combined(np.zeros(1), np.zeros(1), np.zeros(1), ())
    for chain in chains:
        steps = list(chain)
        offers = [
            np.concatenate([[0.0], np.cumsum(each[steps])])
            for each in (choices.freed_weights, choices.freed_cache, choices.prices)
        ]
        held = _joined(held, offers[0], offers[1], offers[2], chain, most)
    return held


def _joined(
    held: Combined, weights: Floats, cache: Floats, prices: Floats, chain: tuple[int, ...], most: int
) -> Combined:
    """Return every combination of `held` with every prefix of one more chain."""
    parents, lengths = (
        grid.ravel()
        for grid in np.meshgrid(np.arange(len(held.prices)), np.arange(len(chain) + 1), indexing="ij")
    )
    new = (
        held.weights[parents] + weights[lengths],
        held.cache[parents] + cache[lengths],
        held.prices[parents] + prices[lengths],
    )
    grain = 1.0
    while len(chosen := _cheapest_of_each(np.floor(new[0] / grain), np.floor(new[1] / grain), new[2])) > most:
        grain *= 2
    if grain > 1:
        new = (np.floor(new[0] / grain) * grain, np.floor(new[1] / grain) * grain, new[2])
    return Combined(
        new[0][chosen],
        new[1][chosen],
        new[2][chosen],
        (*held.stages, (parents[chosen], lengths[chosen], chain)),
    )


def _cheapest_of_each(weights: Floats, cache: Floats, prices: Floats) -> NDArray[np.int64]:
    """Return the indices of the combinations that none dominates, sorted by weights.

    A combination dominates another one if it frees the same cache, and at least the same weights, for less.
    """
    order = np.lexsort((prices, -weights, -cache))
    # Within one size of cache, weights fall: only a price below all those before it is useful.
    starts = np.concatenate([[True], np.diff(cache[order]) != 0])
    useful = np.zeros(len(order), dtype=bool)
    best = np.inf
    for place, (price, start) in enumerate(zip(prices[order].tolist(), starts.tolist(), strict=True)):
        best = np.inf if start else best
        useful[place] = price < best
        best = min(best, price)
    kept = order[useful]
    return kept[np.argsort(weights[kept], kind="stable")]


def _cheapest_at_least(held: Combined) -> NDArray[np.int64]:
    """Return, for each position in the order of weights, the index of the cheapest from there on."""
    best = len(held.prices) - 1
    found = np.zeros(len(held.prices), dtype=np.int64)
    for place in range(len(found) - 1, -1, -1):
        best = place if held.prices[place] <= held.prices[best] else best
        found[place] = best
    return found
