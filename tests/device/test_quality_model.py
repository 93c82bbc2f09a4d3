"""Expected losses against the measured ones."""

from __future__ import annotations

import pytest

from secateur.device.quality_model import factor


def test_costs_are_those_that_were_measured_and_grow_beyond() -> None:
    assert factor("dense", 0.0) == (1.0, True)
    for kind, share, wanted in (("width", 0.2, 1.358), ("depth", 0.1, 1.559)):
        found, measured = factor(kind, share)
        assert found == pytest.approx(wanted)
        assert measured
    assert factor("width", 0.1)[0] == pytest.approx(1.358**0.5)
    farther, measured = factor("width", 0.4)
    assert farther > 1.358**2
    assert not measured
