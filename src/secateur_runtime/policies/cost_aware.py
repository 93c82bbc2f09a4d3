"""The least loss of quality for every byte freed, at this batch and length."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from pathlib import Path

from secateur_runtime.policies import Choices, Decision, Observation, Policy, policy

Entry = tuple[float, int, tuple[int, ...]]


@policy("cost-aware", levels=False)
def cost_aware(choices: Choices, file: Path | None) -> Policy:
    """Repeatedly take the step that costs least per byte it frees now, until the model fits.

    Then restore the steps that turn out to be unnecessary.

    Long batches favour removing attention, because its cache is freed too; short ones favour removing FFNs.
    Steps may be taken in any order, except that steps of one sub-block keep the order of the ladder.
    """
    prices = choices.prices.tolist()
    chain_of = {chain[0]: chain for chain in choices.chains}

    def decide(seen: Observation) -> Decision:
        missing = choices.missing(seen)
        frees = choices.frees(seen).tolist()
        heap: list[Entry] = (
            [_entry(chain, prices, frees) for chain in chain_of.values()] if missing > 0 else []
        )
        heapq.heapify(heap)
        taken: list[int] = []
        while missing > 0 and heap:
            _, length, chain = heapq.heappop(heap)
            taken += chain[:length]
            missing -= sum(frees[index] for index in chain[:length])
            if chain[length:]:
                heapq.heappush(heap, _entry(chain[length:], prices, frees))
        return choices.decide(_restored(taken, -missing, choices, prices, frees), seen)

    return decide


def _entry(chain: tuple[int, ...], prices: Sequence[float], frees: Sequence[float]) -> Entry:
    """Return the cost per byte and length of the cheapest run from the start of a chain, and the chain."""
    best = (float("inf"), 1)
    price = 0.0
    freed = 0.0
    for length, index in enumerate(chain, 1):
        price = price + prices[index]
        freed = freed + frees[index]
        best = min(best, (price / freed if freed > 0 else float("inf"), length))
    return (*best, chain)


def _restored(
    taken: Sequence[int], spare: float, choices: Choices, prices: Sequence[float], frees: Sequence[float]
) -> set[int]:
    """Return `taken` without the most expensive steps that fit in `spare` bytes after all."""
    kept = set(taken)
    needed = {before for index in kept if (before := choices.before[index]) is not None}
    for index in sorted(taken, key=lambda index: -prices[index]):
        if index not in needed and frees[index] <= spare:
            kept.remove(index)
            spare -= frees[index]
            before = choices.before[index]
            needed -= set() if before is None else {before}
    return kept
