"""The method that trains one sub-block at a time starts a pass of its own."""

from __future__ import annotations

from secateur.pipeline.recover.local_reconstruction import Local
from secateur.pipeline.recover.methods import RECOVERIES
from secateur.pipeline.recover.methods.local import local


def test_it_starts_by_itself_with_its_own_options() -> None:
    row = RECOVERIES["local"]
    assert (row.start, row.kind, row.learner) == (local, Local, None)
    assert row.rate == Local().rate
    assert Local().method == row.name
