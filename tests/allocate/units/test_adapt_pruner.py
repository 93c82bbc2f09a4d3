from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq

from secateur.allocate.units import Curve, MeasuredUnits, SpreadContext
from secateur.allocate.units.adapt_pruner import adapt

SIZE = 10_000


def _missing(shift: float, raised: Any, goal: float) -> float:
    return float(np.clip(raised + shift, 0, 0.99).mean() - goal)


def test_equals_the_formula_with_influence_measured_again_each_step() -> None:
    names = ("a", "b", "c")
    curves = {name: Curve((0.0,) * (SIZE + 1), 2) for name in names}
    first = np.array([0.10, 0.12, 0.16])
    asked: list[dict[str, int]] = []

    def influence(shares: Any) -> Any:
        return first * (1 - shares) + 0.05 * shares[::-1]

    def measure(cuts: Mapping[str, int]) -> MeasuredUnits:
        asked.append(dict(cuts))
        shares = np.array([cuts[name] / SIZE for name in names])
        return MeasuredUnits(0.0, dict(zip(names, influence(shares).tolist(), strict=True)))

    cuts = adapt(
        curves,
        0.3,
        SpreadContext(influence=dict(zip(names, first.tolist(), strict=True)), measure=measure),
        steps=5,
    )
    shares = np.zeros(3)
    for _ in range(5):
        centred = influence(shares) - influence(shares).mean()
        raised = shares - 2 * 0.3 / 5 * centred / np.abs(centred).max()
        # the mean step, larger where shares were clipped at zero
        goal = shares.mean() + 0.3 / 5
        shares = np.clip(raised + brentq(_missing, -1, 1, args=(raised, goal)), 0, 0.99)
    assert len(asked) == 4
    np.testing.assert_allclose([cuts[name] / SIZE for name in names], shares, atol=2e-3)
    assert cuts["a"] > cuts["b"] > cuts["c"]


def test_needs_a_measure() -> None:
    with pytest.raises(ValueError, match=r"context\.measure"):
        adapt({"a": Curve((0.0, 1.0, 2.0), 1)}, 0.5, SpreadContext(influence={"a": 0.1}))
