"""Plans that meet one target in different ways: narrower, shallower, or some of both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from secateur.allocate.units import SPREADS, Curve, SpreadContext, parameters_gone
from secateur.allocate.units.target_search import meet
from secateur.core.footprint import Footprint, dropped_halves, footprint
from secateur.core.graph import Graph
from secateur.core.target import Target
from secateur.pipeline.prune.width.unit_ranking import Ranked
from secateur_runtime.errors import TargetError, UnreachableTargetError

SHARES = (1 / 3, 2 / 3)
"""Of what depth alone would take: how much of it goes in a mix."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to meet the target; `keep` and `drop` as in `Plan`."""

    name: str
    keep: Mapping[str, tuple[int, ...]]
    drop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelBudget:
    """A target for the model of `graph`, whose stored weights take `width` bytes each."""

    graph: Graph
    target: Target
    width: int

    @property
    def whole(self) -> Footprint:
        """The model as it is."""
        return self.left({}, ())

    def left(self, keep: Mapping[str, tuple[int, ...]], drop: Sequence[str]) -> Footprint:
        """Return what a plan leaves."""
        return footprint(self.graph, keep, drop, self.width)

    def met(self, keep: Mapping[str, tuple[int, ...]], drop: Sequence[str]) -> bool:
        """Whether a plan meets the target."""
        return self.target.met(self.left(keep, drop), self.whole)

    def price(self, name: str) -> int:
        """Return the bytes that go with a block or a sub-block.

        Its weights and, where the target counts them, its share of the cache.
        """
        left = self.left({}, (name,))
        whole = self.whole
        return (
            whole.weight_bytes - left.weight_bytes + self.target.cache_bytes(whole.kv_values - left.kv_values)
        )


class Narrowing:
    """Meets a budget by narrowing what a drop leaves.

    ranked: the groups that may be narrowed, ranked on the whole model; sensitivity: as `SpreadContext` has
    it, empty for one width for all blocks.
    """

    def __init__(
        self, budget: ModelBudget, ranked: Mapping[str, Ranked], sensitivity: Mapping[str, float]
    ) -> None:
        self._budget = budget
        self._ranked = ranked
        self._sensitivity = sensitivity

    def only(self, kinds: Sequence[str]) -> Narrowing:
        """Return one that narrows groups of these kinds alone."""
        return Narrowing(
            self._budget,
            {name: one for name, one in self._ranked.items() if one.group.kind in kinds},
            self._sensitivity,
        )

    def __call__(self, drop: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """Return what to keep besides dropping `drop`; nothing where narrowing cannot meet the target."""
        ranked = self._left(drop)
        if not ranked or not self._budget.met(self.most(drop), drop):
            return {}
        curves = {name: one.curve for name, one in ranked.items()}
        most = parameters_gone(curves, {name: curve.cuts[-1] for name, curve in curves.items()})
        highest = (
            most / sum(curve.size * curve.price for curve in curves.values()) if self._sensitivity else 1.0
        )
        cuts = meet(
            self._budget.target,
            curves,
            self._spread(curves),
            lambda cuts: self._budget.left(_keep(ranked, cuts), drop),
            whole=self._budget.whole,
            highest=highest,
            costly=False,
        )
        return _keep(ranked, cuts)

    def most(self, drop: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """Return what to keep at least."""
        return _keep(self._left(drop), {name: one.curve.cuts[-1] for name, one in self._left(drop).items()})

    def _left(self, drop: Sequence[str]) -> dict[str, Ranked]:
        blocks = self._budget.graph.blocks
        removed = {f"{block.index}.{part}" for block in blocks for part in dropped_halves(block, drop)}
        # What has no width that may stay, such as heads that must not be fewer, stays whole.
        return {
            name: one
            for name, one in self._ranked.items()
            if f"{name.partition('.')[0]}.{one.group.half}" not in removed and one.curve.cuts
        }

    def _spread(self, curves: Mapping[str, Curve]) -> Callable[[float], dict[str, int]]:
        context = SpreadContext(sensitivity=self._sensitivity)
        function = SPREADS["sensitivity" if self._sensitivity else "uniform"].function
        return lambda ratio: function(curves, ratio, context)


def narrowed(narrowings: Mapping[str, Narrowing]) -> Iterator[Candidate]:
    """Yield what meets the target by width alone."""
    for name, narrowing in narrowings.items():
        if keep := narrowing(()):
            yield Candidate(f"width {name}", keep)


def shallower(
    budget: ModelBudget, narrowings: Mapping[str, Narrowing], name: str, order: Sequence[str]
) -> Iterator[Candidate]:
    """Yield what meets the budget by dropping all of `order`, or the start of it and width.

    order: sub-blocks or blocks, least missed first, that are enough or all there are; name: what they are
    called.
    """
    enough = budget.met({}, order)
    if enough:
        yield Candidate(f"depth {name}", {}, tuple(order))
    counts = dict.fromkeys(_count(budget, order, share) for share in SHARES)
    for count in [*counts, *([] if enough else [len(order)])]:
        drop = tuple(order[:count])
        for kind, narrowing in narrowings.items():
            if count > 0 and (count < len(order) or not enough) and (keep := narrowing(drop)):
                yield Candidate(f"mix {count} {name} + width {kind}", keep, drop)


def distinct(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return the candidates without those that another one before them is."""
    found: list[Candidate] = []
    for one in candidates:
        if all((one.keep, set(one.drop)) != (other.keep, set(other.drop)) for other in found):
            found.append(one)
    return found


def unreachable(
    budget: ModelBudget, narrowings: Mapping[str, Narrowing], orders: Mapping[str, Sequence[str]]
) -> TargetError:
    """Return the error that names the nearest target that something here can reach."""
    ways = [
        (narrowing.most(drop), drop) for narrowing in narrowings.values() for drop in ((), *orders.values())
    ] + [({}, drop) for drop in orders.values()]
    least = min(
        (budget.left(keep, drop) for keep, drop in ways),
        key=lambda left: left.weight_bytes + budget.target.cache_bytes(left.kv_values),
    )
    near = budget.target.nearest(least, budget.whole)
    return UnreachableTargetError(
        f"{budget.target} is out of reach with these --units, --protect, --layers and --align: the nearest is"
        f" {near}"
    )


def _count(budget: ModelBudget, order: Sequence[str], share: float) -> int:
    """Return how many of the first hold about that share of the bytes of all."""
    prices = [budget.price(name) for name in order]
    return min(range(len(order) + 1), key=lambda count: abs(sum(prices[:count]) - share * sum(prices)))


def _keep(ranked: Mapping[str, Ranked], cuts: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    return {name: one.keep(cuts[name]) for name, one in ranked.items() if cuts.get(name)}
