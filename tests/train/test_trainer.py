"""Which windows each step reads.

What a run learns of them is tested in tests/pipeline/test_recover_whole.py.
"""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from secateur.train.trainer import Regime, batches

Sizes = st.integers(1, 9)


def _read(windows: int, steps: int, batch: int, first: int = 0, start: int = 0) -> list[int]:
    found = list(batches(windows, Regime(steps=steps, batch=batch, micro=1, rate=1.0, first=first), 3, start))
    assert all(len(chosen) == batch for chosen in found)
    return torch.cat(found).tolist() if found else []


@given(Sizes, Sizes)
def test_every_window_is_read_once_before_any_is_read_again(windows: int, batch: int) -> None:
    seen = torch.tensor(_read(windows, windows, batch))
    assert torch.bincount(seen, minlength=windows).tolist() == [batch] * windows


@given(Sizes, Sizes, Sizes, st.integers(0, 9))
def test_what_goes_on_reads_what_comes_next(windows: int, batch: int, steps: int, start: int) -> None:
    """After a kill, and in the second of two runs on the same windows."""
    whole = _read(windows, 2 * steps, batch)
    assert _read(windows, steps, batch, first=steps) == whole[steps * batch :]
    assert (
        _read(windows, 2 * steps, batch, start=min(start, 2 * steps))
        == whole[min(start, 2 * steps) * batch :]
    )
