"""Runs that die in the middle of what they write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from torch import Tensor

from secateur.model.written.checkpoint import Checkpoint


@contextmanager
def killed_at(shard: int) -> Iterator[None]:
    """What runs inside must come to write this shard of a checkpoint, and dies there."""
    write = Checkpoint.write

    def stop(self: Checkpoint, index: int, tensors: dict[str, Tensor]) -> None:
        if index == shard:
            raise KeyboardInterrupt
        write(self, index, tensors)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoint, "write", stop)
        yield


def assert_same_files(found: Path, expected: Path) -> None:
    """Two folders hold the same names and bytes."""
    assert {path.name for path in found.iterdir()} == {path.name for path in expected.iterdir()}
    for file in expected.iterdir():
        assert file.read_bytes() == (found / file.name).read_bytes(), file.name
