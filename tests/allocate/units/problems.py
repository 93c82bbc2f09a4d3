"""Groups with random errors and scores, and an oracle whose divergence is the sum of the errors."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

from secateur.allocate.units import Curve, MeasuredUnits


def curves_of(rows: Sequence[tuple[int, int, int, int]], seed: int) -> dict[str, Curve]:
    """Return a curve for each (size, align, least, price), errors growing ever faster."""
    generator = random.Random(seed)
    curves = {}
    for index, (size, align, least, price) in enumerate(rows):
        scores = sorted(generator.random() * generator.uniform(0.5, 4) for _ in range(size))
        weight = generator.uniform(0.1, 3)
        errors = (0.0, *accumulate(weight * score for score in scores))
        curves[f"{index}.ffn"] = Curve(errors, price, tuple(scores), align, least)
    return curves


def oracle(
    curves: Mapping[str, Curve], weights: Mapping[str, float] | None = None
) -> Callable[[Mapping[str, int]], MeasuredUnits]:
    """Return a measure: divergence adds up over groups, and influence falls with the units removed."""

    def measure(cuts: Mapping[str, int]) -> MeasuredUnits:
        kl = sum((weights or {}).get(name, 1.0) * curves[name].errors[cut] for name, cut in cuts.items())
        influence = {
            name: curve.errors[-1] / (1 + curve.errors[-1]) * (1 - cuts[name] / curve.size / 2) / 4
            for name, curve in curves.items()
        }
        return MeasuredUnits(kl, influence)

    return measure
