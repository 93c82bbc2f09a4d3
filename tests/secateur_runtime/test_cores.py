"""No more threads than cores that this process may use."""

from __future__ import annotations

import os

import pytest

from secateur_runtime.cores import check_threads, usable_cores
from secateur_runtime.errors import UsageError


def test_cores_are_those_of_this_process() -> None:
    allowed = os.sched_getaffinity(0)
    assert usable_cores() == len(allowed)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize("count", [0, -1, 5])
def test_more_threads_than_cores_are_refused(count: int) -> None:
    check_threads(4, 4)
    with pytest.raises(UsageError, match=f"^--threads {count}: this machine lets us use 4 cores$"):
        check_threads(count, 4)


def test_the_cores_of_this_process_count_by_default() -> None:
    check_threads(usable_cores())
    with pytest.raises(UsageError, match=f"^--threads 9999: this machine lets us use {usable_cores()} cores"):
        check_threads(9999)
