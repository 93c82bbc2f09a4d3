"""Evolve: groups swap widths, and the model that diverges least from the dense one survives."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from secateur.allocate.units import Curve, MeasuredUnits, SpreadContext, budget_of, parameters_gone, spread
from secateur.allocate.units.balance import settle_cuts
from secateur.allocate.units.knapsack import knapsack

LEVELS = 16
"""A mutation moves a group by about this part of what it can lose."""
_MOST_SWAPS = 3


@spread("evolve", needs={"errors", "measure"}, paper="arXiv:2410.14649")
def evolve(
    curves: Mapping[str, Curve],
    ratio: float,
    context: SpreadContext,
    generations: int = 16,
    offspring: int = 6,
) -> dict[str, int]:
    """Let the fittest of one parent and its `offspring` live, `generations` times over.

    The first parent is the better of equal shares and the knapsack. A child gives one to three groups some
    units back and takes as many parameters from others, so that the budget stays met and no step of the
    alignment is wasted. The fitness is the measured divergence; nothing is measured twice. EvoPress
    (Sieberling et al., 2025), whose stages of selection are left to `context.measure`. Raises UsageError if
    the budget cannot be met, ValueError if nothing can be measured.
    """
    budget = budget_of(curves, ratio)
    if context.measure is None:
        raise ValueError("the evolve spread needs context.measure")
    fitness = _Fitness(context.measure)
    mutation = _Mutation(curves, budget, random.Random(context.seed))
    parent = min(
        (settle_cuts(curves, dict.fromkeys(curves, ratio), budget), knapsack(curves, ratio, context)),
        key=fitness,
    )
    context.progress.start("evolve widths", generations)
    for _ in range(generations):
        parent = min((parent, *(mutation.child(parent) for _ in range(offspring))), key=fitness)
        context.progress.step(f"KL {fitness(parent):.4f}")
    return parent


class _Fitness:
    """The divergence of the model with some cuts; the same cuts are measured once."""

    def __init__(self, measure: Callable[[Mapping[str, int]], MeasuredUnits]) -> None:
        self._measure = measure
        self._known: dict[tuple[int, ...], float] = {}

    def __call__(self, cuts: Mapping[str, int]) -> float:
        key = tuple(cuts.values())
        if key not in self._known:
            self._known[key] = self._measure(cuts).kl
        return self._known[key]


class _Mutation:
    """Random changes that keep the budget."""

    def __init__(self, curves: Mapping[str, Curve], budget: int, generator: random.Random) -> None:
        self._curves = curves
        self._budget = budget
        self._generator = generator
        self._level = {
            name: max(1, round(len(curve.cuts) / LEVELS)) * curve.align for name, curve in curves.items()
        }

    def child(self, parent: Mapping[str, int]) -> dict[str, int]:
        """Return a changed copy of `parent`."""
        cuts = dict(parent)
        swaps = min(self._generator.randint(1, _MOST_SWAPS), self._generator.randint(1, _MOST_SWAPS))
        for _ in range(swaps):
            self._swap(cuts)
        return cuts

    def _swap(self, cuts: dict[str, int]) -> None:
        """Move a level of width from other groups to one group, and keep the budget met.

        Others lose levels until the budget is met; what they lose beyond it is given back.
        """
        given = self._generator.choice(list(cuts))
        cuts[given] = max(cuts[given] - self._level[given], self._curves[given].cuts[0])
        others = [name for name in cuts if name != given]
        self._generator.shuffle(others)
        while parameters_gone(self._curves, cuts) < self._budget:
            able = [name for name in others if cuts[name] < self._curves[name].cuts[-1]] or [given]
            taken = self._generator.choice(able)
            cuts[taken] = min(cuts[taken] + self._level[taken], self._curves[taken].cuts[-1])
        surplus = parameters_gone(self._curves, cuts) - self._budget
        for name in (*others, given):
            curve = self._curves[name]
            steps = min(surplus // (curve.align * curve.price), (cuts[name] - curve.cuts[0]) // curve.align)
            cuts[name] -= steps * curve.align
            surplus -= steps * curve.align * curve.price
