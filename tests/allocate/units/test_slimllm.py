from __future__ import annotations

import numpy as np

from secateur.allocate.units import Curve, SpreadContext
from secateur.allocate.units.slimllm import slimllm


def test_equals_the_formula_where_nothing_is_at_its_limit() -> None:
    cos = {"a": 0.9, "b": 0.95, "c": 0.97, "d": 0.85}
    curves = {name: Curve((0.0,) * 10_001, 3) for name in cos}
    cuts = slimllm(curves, 0.25, SpreadContext(influence={name: 1 - value for name, value in cos.items()}))
    powers = np.exp(10 * np.array(list(cos.values())))
    expected = 0.25 * 4 * powers / powers.sum()
    np.testing.assert_allclose([cuts[name] / 10_000 for name in cos], expected, atol=2e-4)


def test_what_a_full_group_cannot_lose_others_do() -> None:
    curves = {name: Curve((0.0,) * 1001, 1, least=500) for name in "abc"}
    cuts = slimllm(curves, 0.4, SpreadContext(influence={"a": 0.0, "b": 0.3, "c": 0.3}))
    assert cuts["a"] == 500
    assert abs(cuts["b"] - 350) <= 1
    assert sum(cuts.values()) == 1200
