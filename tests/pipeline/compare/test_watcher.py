"""A Watcher that shows nothing takes every event and prints nothing."""

from __future__ import annotations

import pytest

from secateur.pipeline.compare.watcher import Unwatched, Watcher


def test_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    watcher: Watcher = Unwatched()
    watcher.begin(2)
    watcher.started("wanda at 2:4", "make")
    watcher.moved("wanda at 2:4", "prune", 1, 3)
    watcher.ended("wanda at 2:4", "")
    watcher.note("a line")
    assert capsys.readouterr() == ("", "")
