"""A lack of memory is told from other errors, and the largest size that fits is found."""

from __future__ import annotations

import pytest
import torch

from secateur.train.out_of_memory import is_memory, what_fits


def test_an_allocation_that_fails_is_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_memory(caught.value)
    assert is_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_memory(RuntimeError("shapes cannot be multiplied"))


@pytest.mark.parametrize(
    ("size", "limit", "expected"), [(16, 5, 4), (16, 8, 8), (7, 3, 3), (16, 0, 0), (1, 9, 0)]
)
def test_the_largest_halving_that_fits(size: int, limit: int, expected: int) -> None:
    tries: list[int] = []

    def tried(count: int) -> None:
        tries.append(count)
        if count > limit:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")

    assert what_fits(size, tried) == expected
    assert tries == sorted(tries, reverse=True)
    assert all(count < size for count in tries)


def test_other_errors_are_raised() -> None:
    def tried(_count: int) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        what_fits(8, tried)
