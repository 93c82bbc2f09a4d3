"""The least quality for every byte, at this batch and this length."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from pathlib import Path

from secateur_runtime.policies import Choices, Decision, Observation, Policy, policy

Entry = tuple[float, int, tuple[int, ...]]


@policy("cost-aware", levels=False)
def cost_aware(choices: Choices, file: Path | None) -> Policy:
    """Take the step that costs least per byte it frees now, again and again, until all fits.

    Then give back what need not have gone.

    Long batches make attention worth more, as its cache goes with it; short ones make FFNs worth more. The
    order of the ladder does not bind it, but for the steps of one half of a block.
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
        return choices.decide(_given_back(taken, -missing, choices, prices, frees), seen)

    return decide


def _entry(chain: tuple[int, ...], prices: Sequence[float], frees: Sequence[float]) -> Entry:
    """Return the run of steps from the start of a chain that costs least per byte, behind its cost."""
    best = (float("inf"), 1)
    price = 0.0
    freed = 0.0
    for length, index in enumerate(chain, 1):
        price = price + prices[index]
        freed = freed + frees[index]
        best = min(best, (price / freed if freed > 0 else float("inf"), length))
    return (*best, chain)


def _given_back(
    taken: Sequence[int], spare: float, choices: Choices, prices: Sequence[float], frees: Sequence[float]
) -> set[int]:
    """Return `taken` without the dearest steps for which there is room after all."""
    kept = set(taken)
    needed = {before for index in kept if (before := choices.before[index]) is not None}
    for index in sorted(taken, key=lambda index: -prices[index]):
        if index not in needed and frees[index] <= spare:
            kept.remove(index)
            spare -= frees[index]
            before = choices.before[index]
            needed -= set() if before is None else {before}
    return kept
