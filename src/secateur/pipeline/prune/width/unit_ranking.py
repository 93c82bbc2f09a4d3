"""In which order the units of every group leave, and what that costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from secateur.allocate.units import Curve
from secateur.calibrate.input_statistics import HiddenStates
from secateur.core.graph import Block, Graph, Group, Kind
from secateur.criteria import CRITERIA
from secateur.criteria.units import UNIT_CRITERIA, UnitCriterion, kinds_of, unit_criterion_for
from secateur.tensors.layer_stream import LiveBlock
from secateur.tensors.precision import arithmetic
from secateur.tensors.stats import LinearStats
from secateur.tensors.unit_view import UnitView
from secateur.transform.obs_elimination import eliminate
from secateur_runtime.errors import UsageError, nearest

ELIMINATION = "obs"
"""Not a score of each unit but an order, found by taking units out one after another; the default for what
lies in one sub-block.
"""
HIDDEN_DEFAULT = "minitron"

Steps = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class UnitScorer:
    """A criterion for groups of one kind.

    `function` is None for the elimination, which orders without scores.
    """

    name: str
    function: UnitCriterion | None
    needs: frozenset[str]

    def score(self, view: UnitView) -> Tensor:
        """Return a score per unit; raises ValueError for the elimination."""
        if self.function is None:
            raise ValueError(f"{self.name} orders units without scoring them")
        return self.function(view)


@dataclass(frozen=True, slots=True)
class Ranked:
    """A group, the steps in which its units leave (first to leave first), and the cost of so many steps."""

    group: Group
    steps: Steps
    curve: Curve

    def keep(self, cut: int) -> tuple[int, ...]:
        """Return the units that stay after `cut` steps, ascending."""
        removed = {unit for step in self.steps[:cut] for unit in step}
        return tuple(unit for unit in range(self.group.size) if unit not in removed)


def scorer_for(name: str | None, kind: Kind) -> UnitScorer:
    """Return the criterion `name` (None: the default) for units of `kind`.

    A criterion for weights scores a unit by the sum over its inputs of the sub-block's last linear.
    Raises UsageError if it cannot score them.
    """
    if name is None:
        name = HIDDEN_DEFAULT if kind == "hidden" else ELIMINATION
    if name == ELIMINATION and kind != "hidden":
        return UnitScorer(name, None, frozenset({"gram"}))
    if name in UNIT_CRITERIA:
        entry = unit_criterion_for(name, kind)
        return UnitScorer(name, entry.function, entry.needs)
    if name in CRITERIA and kind != "hidden":
        return UnitScorer(name, _summed(name), CRITERIA[name].needs)
    known = sorted(
        {name for name in UNIT_CRITERIA if kind in kinds_of(name)}
        | ({*CRITERIA, ELIMINATION} if kind != "hidden" else set())
    )
    raise UsageError(
        f"no --criterion {name!r} for {kind} units{nearest(name, known)}; known: {', '.join(known)}"
    )


def _summed(name: str) -> UnitCriterion:
    def score(view: UnitView) -> Tensor:
        saliency = CRITERIA[name].function(view.weights[view.last.tensor], view.stats[view.last.tensor])
        return replace(view, weights={view.last.tensor: saliency}).values(view.last).sum((1, 2))

    return score


def price(graph: Graph, group: Group) -> int:
    """Return the parameters that one unit of a group holds."""
    return sum(
        part.block * (graph.tensors[part.tensor].numel // graph.tensors[part.tensor].shape[part.dim])
        for part in group.slices
    )


class Ranking:
    """Ranks groups as the blocks that hold them pass by.

    groups: those to rank; scorers: by kind; errors: whether every curve must hold output errors, or summed
    scores will do.
    """

    def __init__(
        self,
        graph: Graph,
        groups: Iterable[Group],
        scorers: Mapping[Kind, UnitScorer],
        *,
        errors: bool,
        seed: int,
    ) -> None:
        self._graph = graph
        self._scorers = scorers
        self._errors = errors
        self._seed = seed
        self._wanted = {group.name: group for group in groups}
        self._hidden = next((group for group in self._wanted.values() if group.kind == "hidden"), None)
        self._total = torch.zeros(self._hidden.size if self._hidden else 0, dtype=torch.float64)
        self._graded: dict[str, Tensor] = {}
        self._found: dict[str, Ranked] = {}

    @property
    def graded(self) -> frozenset[str]:
        """The tensors whose gradients the criteria need."""
        steep = [group for group in self._wanted.values() if "gradient" in self._scorers[group.kind].needs]
        return frozenset(part.tensor for group in steep for part in group.slices)

    def grade(self, live: LiveBlock, gradients: Mapping[str, Tensor]) -> None:
        """Score what is scored by gradients, in any order of blocks, before `look` sees any."""
        for group in self._of(live.block):
            if "gradient" in self._scorers[group.kind].needs:
                scores = self._viewed(group, live, {}, gradients)
                if group.kind == "hidden":
                    self._total += scores.double()
                else:
                    self._graded[group.name] = scores

    def needs(self, block: Block) -> dict[str, frozenset[str]]:
        """Return which statistics of the inputs of which linears `look` reads."""
        found: dict[str, frozenset[str]] = {}
        linears = {linear.tensor for linear in block.linears}
        for group in self._of(block):
            scorer = self._scorers[group.kind]
            last = group.slices[-1].tensor
            read = {last} if scorer.function is None else {part.tensor for part in group.slices} & linears
            asked = dict.fromkeys(read, scorer.needs - {"gradient"})
            if self._errors and group.kind != "hidden":
                asked[last] = asked.get(last, frozenset()) | {"gram"}
            found |= {tensor: found.get(tensor, frozenset()) | needs for tensor, needs in asked.items()}
        return found

    def look(self, live: LiveBlock, stats: Mapping[str, LinearStats]) -> None:
        """Rank the groups of a dense block; stats: what `needs` asks for, by tensor."""
        for group in self._of(live.block):
            if group.kind != "hidden":
                self._found[group.name] = self._rank(group, live, stats)
            elif "gradient" not in self._scorers["hidden"].needs:
                self._total += self._scores(group, live, stats).double()

    def _of(self, block: Block) -> list[Group]:
        """Return the groups wanted of a block, and its part of the one that runs through all."""
        found = [group for group in block.groups if group.name in self._wanted]
        if self._hidden:
            found.append(
                replace(
                    self._hidden,
                    slices=tuple(part for part in self._hidden.slices if part.tensor in block.tensors),
                )
            )
        return found

    def scale(self, block: Block, hidden: HiddenStates) -> None:
        """Divide the errors of a block's groups by the median squared state after it: blocks then compare."""
        norm = float(torch.stack([batch.square().sum(-1).median() for batch in hidden.batches()]).median())
        for name in (group.name for group in block.groups if group.name in self._found):
            curve = self._found[name].curve
            relative = replace(
                curve,
                errors=tuple(error / norm for error in curve.errors),
                unanswered=tuple(error / norm for error in curve.unanswered),
            )
            self._found[name] = replace(self._found[name], curve=relative)

    def results(self) -> dict[str, Ranked]:
        """Return what was found for every group."""
        if not self._hidden:
            return dict(self._found)
        return self._found | {self._hidden.name: self._by_scores(self._hidden, self._total.float(), 1)}

    def _rank(self, group: Group, live: LiveBlock, stats: Mapping[str, LinearStats]) -> Ranked:
        eliminates = self._scorers[group.kind].function is None
        ranked = self._by_elimination(group, live, stats[group.slices[-1].tensor]) if eliminates else None
        if ranked and group.kind != "head":
            return ranked
        scores = _places(ranked) if ranked else self._scores(group, live, stats)
        # Equally many heads must stay in every key-value group, so one of each leaves at a time.
        ranked = self._by_scores(group, scores, live.block.shape.n_kv_heads if group.kind == "head" else 1)
        if not self._errors:
            return ranked
        output = group.slices[-1]
        errors = _errors_of_leaving(
            live.weight(output.tensor), stats[output.tensor], ranked.steps, output.block
        )
        return replace(ranked, curve=replace(ranked.curve, errors=errors))

    def _by_elimination(self, group: Group, live: LiveBlock, stats: LinearStats) -> Ranked:
        """Rank by what is lost when the other units compensate for one.

        The scores are what each unit adds to that loss.
        """
        output = group.slices[-1]
        with arithmetic("float32"):
            found = eliminate(live.weight(output.tensor), stats, output.block)
        added = list(accumulate((after - before for before, after in pairwise(found.errors[:-1])), max))
        scores = (*added, added[-1] if added else 0.0)
        steps = tuple((unit,) for unit in found.order)
        unanswered = (
            _errors_of_leaving(live.weight(output.tensor), stats, steps, output.block) if self._errors else ()
        )
        return Ranked(
            group, steps, Curve(found.errors, price(self._graph, group), scores, unanswered=unanswered)
        )

    def _by_scores(self, group: Group, scores: Tensor, alike: int) -> Ranked:
        """Rank by ascending score; `alike` equal parts of the group lose one unit each in every step."""
        parts = scores.view(alike, -1)
        order = parts.argsort(dim=1, stable=True) + torch.arange(alike)[:, None] * parts.shape[1]
        steps = tuple(tuple(step) for step in order.T.tolist())
        each = scores[order].mean(0).tolist()
        return Ranked(
            group,
            steps,
            Curve(tuple(accumulate(each, initial=0.0)), price(self._graph, group) * alike, tuple(each)),
        )

    def _scores(self, group: Group, live: LiveBlock, stats: Mapping[str, LinearStats]) -> Tensor:
        return (
            self._graded[group.name] if group.name in self._graded else self._viewed(group, live, stats, {})
        )

    def _viewed(
        self, group: Group, live: LiveBlock, stats: Mapping[str, LinearStats], gradients: Mapping[str, Tensor]
    ) -> Tensor:
        weights = {part.tensor: live.weight(part.tensor) for part in group.slices}
        with arithmetic("float32"):
            return self._scorers[group.kind].score(UnitView(group, weights, stats, gradients, self._seed))


def _places(ranked: Ranked) -> Tensor:
    """Return each unit's place in the order in which units leave."""
    places = torch.empty(ranked.group.size)
    places[[unit for step in ranked.steps for unit in step]] = torch.arange(
        ranked.group.size, dtype=torch.float32
    )
    return places


def _errors_of_leaving(weight: Tensor, stats: LinearStats, steps: Steps, block: int) -> tuple[float, ...]:
    """Return the mean squared output error after 0, 1, ... steps have left, without any repair."""
    inputs = [unit * block + inner for step in steps for unit in step for inner in range(block)]
    gram = stats.gram
    if gram is None:
        raise ValueError("errors need stats.gram")
    columns = weight[:, inputs].double()
    products = (columns.T @ columns) * gram[inputs][:, inputs].double()
    # The error of the first k inputs is the sum over the leading k x k corner.
    corners = (2 * products.tril(-1).sum(1) + products.diagonal()).cumsum(0)
    width = len(inputs) // len(steps)
    return (0.0, *corners[width - 1 :: width].clamp_min(0).tolist())
