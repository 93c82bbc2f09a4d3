"""Convert a ladder to the arrays that policies decide from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from statistics import fmean

import numpy as np

from secateur_runtime.ladder import Ladder, half_of
from secateur_runtime.ladder_costs import Choices, Floats


def nothing(batch: int, tokens: int) -> float:
    """Return 0 bytes of activations, for callers that count weights and KV cache only."""
    return 0.0


def choices_of(
    ladder: Ladder, *, kv_bytes: int = 4, activations: Callable[[int, int], float] = nothing
) -> Choices:
    """Return the costs of a ladder as arrays.

    kv_bytes: bytes of one number in the cache. activations: returns the bytes of a pass for a batch and the
    number of new tokens of each sequence.
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
    """Return what each step costs on its own, nats per token, at least 0, `[n]`.

    For a priced ladder (`secateur adapt price`): the loss of the whole model without the step, minus its loss
    without the previous step of the same sub-block. Otherwise: the mean increase measured for the step, over
    all levels at which it was measured.
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
    """Return whether the cost on its own is known for every step."""
    return bool(ladder.costs) and all(rung.unit in ladder.costs[0] for rung in ladder.rungs)


def _steps(ladder: Ladder) -> Iterator[tuple[str, str]]:
    """Yield each step and the previous step of its sub-block, or an empty string."""
    last: dict[str, str] = {}
    for rung in ladder.rungs:
        sub_block = half_of(rung.unit)
        yield rung.unit, last.get(sub_block, "")
        last[sub_block] = rung.unit
