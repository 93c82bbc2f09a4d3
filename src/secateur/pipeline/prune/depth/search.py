"""Choose which blocks go: by a score, as the best span, or one by one with everything measured again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from secateur.core.progress import Progress
from secateur.criteria.depth import DepthCriterion
from secateur.pipeline.prune.depth.block_ablation import Removal
from secateur_runtime.errors import UsageError

RECHECKED = 8
"""Candidates measured anew at each step; the others keep what they last cost."""

Places = Callable[[int, str], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class RemovalSearch:
    """What may go, named as in `Plan.drop`, with its price in bytes, and whether enough is removed."""

    prices: Mapping[str, int]
    enough: Callable[[Sequence[str]], bool]

    def worth(self, removed: Sequence[str]) -> dict[str, int]:
        """Return the bytes that each remaining candidate would free.

        They are capped at the price of the cheapest one that alone would meet the budget: more earns nothing.
        """
        left = {name: price for name, price in self.prices.items() if name not in removed}
        most = min(
            (price for name, price in left.items() if self.enough([*removed, name])),
            default=max(left.values()),
        )
        return {name: min(price, most) for name, price in left.items()}

    def trimmed(self, drop: Sequence[str]) -> tuple[str, ...]:
        """Return `drop` without what need not go after all.

        What came last is tried first, as it costs most.
        """
        kept = list(drop)
        for name in reversed(drop):
            rest = [other for other in kept if other != name]
            if self.enough(rest):
                kept = rest
        return tuple(kept)


def in_order(
    goes: RemovalSearch, criterion: DepthCriterion, states: Sequence[Tensor], places: Places
) -> Removal:
    """Return what costs least per byte in the whole model, as much as is enough.

    states, places: as `passing` returns them.
    """

    def cost(name: str) -> float:
        index, _, part = name.partition(".")
        start, end = places(int(index), part)
        return float(criterion(states[start], states[end], _nothing(states)).mean()) / goes.prices[name]

    ordered = sorted(goes.prices, key=cost)
    count = next(count for count in range(1, len(ordered) + 1) if goes.enough(ordered[:count]))
    return Removal(goes.trimmed(ordered[:count]))


def best_span(
    goes: RemovalSearch, criterion: DepthCriterion, states: Sequence[Tensor], places: Places
) -> Removal:
    """Return the run of consecutive blocks that costs least among the shortest that are enough.

    Raises UsageError if none is.
    """
    spans: list[tuple[str, ...]] = []
    for length in range(1, len(goes.prices) + 1):
        runs = (
            tuple(str(index) for index in range(int(first), int(first) + length)) for first in goes.prices
        )
        spans = [run for run in runs if all(name in goes.prices for name in run) and goes.enough(run)]
        if spans:
            break
    if not spans:
        raise UsageError(
            "no run of consecutive blocks is enough with these --protect and --layers: use another"
            " --criterion"
        )

    def cost(run: tuple[str, ...]) -> float:
        start = places(int(run[0]), "")[0]
        end = places(int(run[-1]), "")[1]
        return float(criterion(states[start], states[end], _nothing(states)).mean())

    return Removal(min(spans, key=cost))


def one_by_one(
    goes: RemovalSearch,
    outcomes: Callable[[Sequence[Removal]], list[float]],
    progress: Progress,
    *,
    merging: bool = False,
) -> Removal:
    """Drop, until enough has gone, what costs least per byte, measured after every removal.

    merging: the block before takes in the differences of the one that goes. The greedy search is
    BlockPruner's (arXiv:2406.10594).
    """
    removed: list[str] = []
    known: dict[str, float] = {}
    (base,) = outcomes([Removal()])
    progress.start("search depth", len(goes.prices))
    while not goes.enough(removed):
        worth = goes.worth(removed)
        fresh = _sorted(known, base, worth)[:RECHECKED] if known else list(worth)
        found = dict(
            zip(fresh, outcomes([removal([*removed, name], merging=merging) for name in fresh]), strict=True)
        )
        best = _sorted(found, base, worth)[0]
        removed.append(best)
        known = known | found
        base = found[best]
        progress.step(f"drop {best}")
        progress.note(f"drop {best}: {base:.4f}")
    return removal(goes.trimmed(removed), merging=merging)


def _sorted(costs: Mapping[str, float], base: float, worth: Mapping[str, int]) -> list[str]:
    """Return what may still go, by what one more byte of it costs, the least first."""
    return sorted(costs.keys() & worth.keys(), key=lambda name: ((costs[name] - base) / worth[name], name))


def removal(drop: Sequence[str], *, merging: bool = False) -> Removal:
    """Return what goes; if merging, into the surviving block before each."""
    if not merging:
        return Removal(tuple(drop))
    into: dict[str, tuple[str, ...]] = {}
    for index in sorted(map(int, drop)):
        before = next(earlier for earlier in range(index - 1, -1, -1) if str(earlier) not in drop)
        into[str(before)] = (*into.get(str(before), ()), str(index))
    return Removal(tuple(drop), into)


def _nothing(states: Sequence[Tensor]) -> Tensor:
    """Return no tokens, for criteria that compare states."""
    return states[0].new_zeros(0).long()
