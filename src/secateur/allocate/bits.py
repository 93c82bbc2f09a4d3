"""How many bits each weight gets: the choice of least cost that fits into a number of bytes.

Greedy over a few given options a weight, each taken whole and skipped where it no longer fits; the knapsack
of `allocate.units` ends within a segment of its hull, at the cut that just frees enough.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StorageOption:
    """One way to store something: the bytes it takes and what it costs in quality."""

    size: int
    cost: float


def cheapest(options: Mapping[str, Sequence[StorageOption]], budget: int) -> dict[str, int] | None:
    """Return for each name the index of the option to take, so that all sizes fit into `budget` bytes.

    None where even the smallest options do not fit. Everything starts at its least size and grows along the
    lower convex hull of its costs, where a byte saves most first; an option that no longer fits is skipped.
    Optimal but for the last bytes: a greedy solution of a knapsack of many small items.
    """
    taken = {
        name: min(range(len(rows)), key=lambda index: (rows[index].size, rows[index].cost))
        for name, rows in options.items()
    }
    left = budget - sum(options[name][index].size for name, index in taken.items())
    if left < 0:
        return None
    waiting = [step for name in options if (step := _next(name, options[name], taken[name], left))]
    heapq.heapify(waiting)
    while waiting:
        _, name, index = heapq.heappop(waiting)
        extra = options[name][index].size - options[name][taken[name]].size
        if extra <= left:
            taken[name] = index
            left = left - extra
        if step := _next(name, options[name], taken[name], left):
            heapq.heappush(waiting, step)
    return taken


def _next(name: str, rows: Sequence[StorageOption], now: int, left: int) -> tuple[float, str, int] | None:
    """Return the larger option that fits and saves most per byte, as (minus the saving, name, index)."""
    here = rows[now]
    steps = [
        ((row.cost - here.cost) / (row.size - here.size), name, index)
        for index, row in enumerate(rows)
        if 0 < row.size - here.size <= left and row.cost < here.cost
    ]
    return min(steps, default=None)
