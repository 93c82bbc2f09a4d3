"""What the steps of one run share: results of one run are not those of another."""

from __future__ import annotations

from secateur.core.context import RunContext
from secateur.core.write_settings import Settings


def test_two_runs_share_no_results() -> None:
    first = RunContext()
    first.results["rotation"] = 1
    assert RunContext().results == {}
    assert (first.seed, first.settings) == (0, Settings())
