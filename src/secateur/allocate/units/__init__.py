"""How a budget of units is spread over groups: one method per file.

A spread gets what each group can lose and at what cost, and returns how many units each group loses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from secateur.core.progress import Progress, Silent
from secateur_runtime.errors import UsageError
from secateur_runtime.registry import Registry


@dataclass(frozen=True, slots=True)
class Curve:
    """What it costs a group to lose units.

    errors: cumulative relative output error after 0, 1, ... units have been removed; one more entry than
    there are units.
    price: parameters that one unit holds.
    scores: the units' scores in the order of their removal, ascending.
    align: the number of retained units is a multiple of it.
    least: at least this many units are retained.
    unanswered: as `errors`, without a repair that compensates for the removed units; empty where `errors`
    hold no repair either.
    """

    errors: tuple[float, ...]
    price: int
    scores: tuple[float, ...] = ()
    align: int = 1
    least: int = 1
    unanswered: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        """Number of units."""
        return len(self.errors) - 1

    @property
    def cuts(self) -> range:
        """How many units may be removed, ascending; empty if no allowed width exists."""
        fewest = -(-max(self.least, 1) // self.align) * self.align
        return range(self.size % self.align, self.size - fewest + 1, self.align)


@dataclass(frozen=True, slots=True)
class MeasuredUnits:
    """A model without some of its units, measured.

    kl: mean divergence from the dense model, nats per token.
    influence: group name -> 1 - cos(x_in, x_out) of the sub-block or block it lies in.
    """

    kl: float
    influence: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpreadContext:
    """What a spread may use in addition to the curves.

    influence: group name -> 1 - cos(x_in, x_out) of the sub-block or block it lies in, of the dense model.
    sensitivity: group name -> divergence of the predictions per unit of output error there, nats per token.
    measure: measures the model without the given number of units of each group.
    """

    influence: Mapping[str, float] = field(default_factory=dict)
    sensitivity: Mapping[str, float] = field(default_factory=dict)
    measure: Callable[[Mapping[str, int]], MeasuredUnits] | None = None
    seed: int = 0
    progress: Progress = field(default_factory=Silent)


Spread = Callable[[Mapping[str, Curve], float, SpreadContext], dict[str, int]]
"""Group name -> number of units to remove, one of the group's `cuts`.

Together they hold at least the given ratio of all parameters.
"""

SPREADS: Registry[Spread] = Registry(
    "spread",
    "secateur.allocate.units",
    "secateur.spreads",
    needs={"errors", "influence", "sensitivity", "measure"},
)
F = TypeVar("F", bound=Spread)


def spread(name: str, *, needs: frozenset[str] | set[str] = frozenset(), paper: str = "") -> Callable[[F], F]:
    """Return a decorator that registers a spread; arguments after the first three must have defaults.

    needs: `errors` for curves of measured output errors rather than of summed scores; `influence`,
    `sensitivity` and `measure` for those of the context.
    """

    def record(function: F) -> F:
        SPREADS.register(name, needs=needs, paper=paper)(function)
        return function

    return record


def parameters_gone(curves: Mapping[str, Curve], cuts: Mapping[str, int]) -> int:
    """Return how many parameters `cuts` remove."""
    return sum(count * curves[name].price for name, count in cuts.items())


def budget_of(curves: Mapping[str, Curve], ratio: float) -> int:
    """Return how many parameters `ratio` of all units holds; raises UsageError if that many cannot go."""
    budget = round(ratio * sum(curve.size * curve.price for curve in curves.values()))
    check_budget(curves, budget)
    return budget


def check_budget(curves: Mapping[str, Curve], budget: int) -> None:
    """Raise UsageError, naming the largest possible number, if `budget` parameters cannot go."""
    check_cuts(curves)
    most = sum(curve.cuts[-1] * curve.price for curve in curves.values())
    if budget > most:
        raise UsageError(
            f"{budget:,} parameters cannot go: at most {most:,} of these units can; keep more, protect less"
            " or name more --units"
        )


def check_cuts(curves: Mapping[str, Curve]) -> None:
    """Raise UsageError for a group that has no allowed width."""
    for name, curve in curves.items():
        if not curve.cuts:
            raise UsageError(
                f"{name} has {curve.size} units, which leaves no multiple of --align {curve.align} of at"
                f" least {curve.least}"
            )
