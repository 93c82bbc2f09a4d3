"""From the file of a ladder to what policies choose from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from statistics import fmean

import numpy as np

from secateur_runtime.ladder import Ladder
from secateur_runtime.ladder_costs import Choices, Floats, half_of


def nothing(batch: int, tokens: int) -> float:
    """Return no bytes: for whoever counts weights and KV cache only."""
    return 0.0


def choices_of(
    ladder: Ladder, *, kv_bytes: int = 4, activations: Callable[[int, int], float] = nothing
) -> Choices:
    """Return what a ladder offers.

    kv_bytes: of a number in the cache. activations: bytes of a pass, for a batch and the new tokens of each
    sequence.
    """
    levels = [ladder.at(level) for level in range(len(ladder))]
    return Choices(
        ladder="sha256:" + hashlib.sha256(ladder.to_json().encode()).hexdigest(),
        units=tuple(rung.unit for rung in ladder.rungs),
        losses=np.array([rung.loss for rung in levels]),
        prices=prices_of(ladder),
        weights=np.array([rung.weight_bytes for rung in levels], dtype=float),
        cache=np.array([rung.kv_values * kv_bytes for rung in levels], dtype=float),
        flops=np.array([rung.flops for rung in levels], dtype=float),
        activations=activations,
    )


def prices_of(ladder: Ladder) -> Floats:
    """Return what each step costs on its own, nats per token, at least 0.

    Where the ladder was priced (`secateur adapt price`), what the whole model loses without it, less what it
    loses without the step before it in its half. Otherwise the mean of what the step was measured to add, at
    all levels where it was.
    """
    if priced(ladder):
        alone = ladder.costs[0]
        return np.array(
            [max(0.0, alone[unit] - alone.get(before, ladder.loss)) for unit, before in _steps(ladder)]
        )
    added: dict[str, list[float]] = {}
    for level, costs in enumerate(ladder.costs):
        for unit, loss in costs.items():
            added.setdefault(unit, []).append(loss - ladder.at(level).loss)
    taken = {rung.unit: rung.loss - ladder.at(level).loss for level, rung in enumerate(ladder.rungs)}
    return np.array([max(0.0, fmean(added.get(rung.unit, [taken[rung.unit]]))) for rung in ladder.rungs])


def priced(ladder: Ladder) -> bool:
    """Return whether it is known of every step what it costs on its own."""
    return bool(ladder.costs) and all(rung.unit in ladder.costs[0] for rung in ladder.rungs)


def _steps(ladder: Ladder) -> Iterator[tuple[str, str]]:
    """Yield each step and the one before it in its half, or nothing."""
    last: dict[str, str] = {}
    for rung in ladder.rungs:
        half = half_of(rung.unit)
        yield rung.unit, last.get(half, "")
        last[half] = rung.unit
