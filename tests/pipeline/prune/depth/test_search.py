"""The searches on hand-made prices and costs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from secateur.core.progress import Silent
from secateur.pipeline.prune.depth.block_ablation import Removal
from secateur.pipeline.prune.depth.search import RemovalSearch, best_span, in_order, one_by_one, removal
from secateur_runtime.errors import UsageError

PRICES = {"1": 4, "2": 3, "3": 2, "4": 1}


def search(budget: int, prices: dict[str, int] | None = None) -> RemovalSearch:
    """Blocks with prices, of which those that go must free `budget` bytes."""
    known = prices or PRICES
    return RemovalSearch(known, lambda drop: sum(known[name] for name in drop) >= budget)


def seams(index: int, part: str) -> tuple[int, int]:
    """Where a block, or a sub-block of it, starts and ends."""
    return {"": (2 * index, 2 * index + 2), "attn": (2 * index, 2 * index + 1)}.get(
        part, (2 * index + 1, 2 * index + 2)
    )


def states(*values: float) -> list[Tensor]:
    """One state of one channel at every place."""
    return [torch.tensor([[float(value)]]) for value in values]


def moved(before: Tensor, after: Tensor, _targets: Tensor) -> Tensor:
    """How far a state moves."""
    return (after - before).abs().sum(-1)


def test_worth_is_capped_at_the_cheapest_that_is_enough() -> None:
    # Two more bytes are needed: block 3 alone frees them, so block 2 is worth no more.
    assert search(6).worth(["1"]) == {"2": 2, "3": 2, "4": 1}
    # Nothing alone is enough: each is worth its price.
    assert search(10).worth([]) == PRICES


def test_what_need_not_go_stays_the_last_first() -> None:
    assert search(4).trimmed(["4", "3", "1"]) == ("1",)
    assert search(5).trimmed(["1", "4", "3"]) == ("1", "4")
    assert search(7).trimmed(["1", "2"]) == ("1", "2")


def test_in_order_of_cost_for_each_byte() -> None:
    # Per byte: block 1 costs 8 / 4, block 2 3 / 3, block 3 1 / 2, block 4 4 / 1.
    track = states(0, 0, 0, 0, 8, 8, 11, 11, 12, 12, 16)
    assert in_order(search(5), moved, track, seams) == Removal(("3", "2"))
    assert in_order(search(3), moved, track, seams) == Removal(("2",))


def test_the_best_of_the_shortest_spans() -> None:
    track = states(0, 0, 0, 0, 8, 8, 11, 11, 12, 12, 16)
    equal = dict.fromkeys(PRICES, 1)
    assert best_span(search(2, equal), moved, track, seams) == Removal(("2", "3"))
    assert best_span(search(1, equal), moved, track, seams) == Removal(("3",))
    with pytest.raises(UsageError, match="no run of consecutive blocks is enough"):
        best_span(search(2, {"1": 1, "3": 1}), moved, track, seams)


def test_one_by_one_measures_after_every_removal() -> None:
    """Blocks 1 and 2 are cheap alone and dear together, so the second to go is another one."""
    alone = {"1": 1.0, "2": 1.5, "3": 3.0, "4": 9.0}
    asked: list[tuple[str, ...]] = []

    def outcomes(removals: Sequence[Removal]) -> list[float]:
        asked.extend(one.drop for one in removals)
        return [
            sum(alone[name] for name in one.drop) + 10 * ({"1", "2"} <= set(one.drop)) for one in removals
        ]

    equal = dict.fromkeys(PRICES, 1)
    found = one_by_one(search(2, equal), outcomes, Silent())
    assert found == Removal(("1", "3"))
    assert asked[:5] == [(), ("1",), ("2",), ("3",), ("4",)]
    assert set(asked[5:]) == {("1", "2"), ("1", "3"), ("1", "4")}


def test_merged_blocks_go_into_the_survivor_before_them() -> None:
    assert removal(["3", "1", "2"]) == Removal(("3", "1", "2"))
    assert removal(["3", "1", "5", "2"], merging=True).merge == {"0": ("1", "2", "3"), "4": ("5",)}
