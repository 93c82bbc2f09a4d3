"""Memory that is filled from a file and leaves the process, as the system counts it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.runtime.elastic.steps import anonymous

from secateur_runtime.decoder.prefix_weights import FileSpan, Prefix
from secateur_runtime.decoder.releasable_memory import PAGE, ReleasableMemory, WeightFile
from secateur_runtime.errors import SourceError

MB = 1 << 20


def test_what_is_released_has_left_the_process() -> None:
    room = ReleasableMemory(32 * MB)
    before = anonymous()
    room.tensor(0, (32 * MB,), torch.uint8).fill_(1)
    assert anonymous() - before == pytest.approx(32 * MB, rel=0.05)
    assert room.release(8 * MB + 1, 32 * MB) == 24 * MB - PAGE
    assert anonymous() - before == pytest.approx(8 * MB, rel=0.1)
    left = room.tensor(0, (32 * MB,), torch.uint8)
    assert (int(left[8 * MB]), int(left[8 * MB + PAGE])) == (1, 0)
    assert room.release(1, PAGE) == 0


def test_a_file_that_ends_too_soon_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    with pytest.raises(SourceError, match="ends at byte 100"):
        Prefix(ReleasableMemory(PAGE), 0, WeightFile(path), FileSpan(0, (10, 20), torch.uint8), 1).hold(10)
    with pytest.raises(SourceError, match="cannot read"):
        WeightFile(tmp_path / "none")
