"""Cutting and putting back: what any group removes is absent, and the rest is where it was."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from secateur.core.graph import Group, Slice
from secateur.transform.surgery import cut, survivors, uncut

GROUPS = (
    Group("pairs", "kv", 3, (Slice("a", 0, 2), Slice("b", 1, 2), Slice("elsewhere", 0))),
    Group("singles", "head", 6, (Slice("a", 0), Slice("b", 1))),
    Group("others", "hidden", 4, (Slice("a", 1), Slice("b", 0, 1, 1))),
)
SHAPES = {"a": (6, 4), "b": (5, 6), "c": (2,)}


def _keep(size: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.sets(st.integers(0, size - 1), min_size=1).map(lambda found: tuple(sorted(found)))


keeps = st.fixed_dictionaries({}, optional={group.name: _keep(group.size) for group in GROUPS})


@given(keeps)
def test_cut_and_uncut(keep: dict[str, tuple[int, ...]]) -> None:
    whole = {
        name: torch.randn(shape, generator=torch.Generator().manual_seed(1)) for name, shape in SHAPES.items()
    }
    rows = [
        row
        for row in range(6)
        if row // 2 in keep.get("pairs", range(3)) and row in keep.get("singles", range(6))
    ]
    channels = list(keep.get("others", range(4)))
    found = cut(whole, GROUPS, keep)
    assert torch.equal(found["a"], whole["a"][rows][:, channels])
    assert torch.equal(found["b"], whole["b"][[0, *(channel + 1 for channel in channels)]][:, rows])
    assert torch.equal(found["c"], whole["c"])
    again = uncut(found, SHAPES, GROUPS, keep)
    assert torch.equal(cut(again, GROUPS, keep)["a"], found["a"])
    assert int((again["a"] != 0).sum()) == found["a"].numel()
    assert {name: tuple(tensor.shape) for name, tensor in again.items()} == SHAPES


def test_tensors_that_lose_nothing_are_left_out() -> None:
    assert survivors(SHAPES, GROUPS, {}) == {}
    assert set(survivors({"c": (2,), "a": (6, 4)}, GROUPS, {"pairs": (1,)})) == {"a"}
