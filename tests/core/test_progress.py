"""The progress that shows nothing."""

from __future__ import annotations

import pytest

from secateur.core.progress import Progress, Silent


def test_silent_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress: Progress = Silent()
    progress.start("pruning", 2, done=1)
    progress.step("block 1")
    progress.note("one line")
    assert capsys.readouterr() == ("", "")
