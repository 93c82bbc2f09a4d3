"""Decide which units every block keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

import torch
from torch import Tensor

from secateur.allocate.protect import layers_named, protected_groups
from secateur.allocate.units import SPREADS, Curve, SpreadContext, check_cuts, parameters_gone
from secateur.allocate.units.target_search import meet
from secateur.calibrate.calibration import Calibration, planned_tokens
from secateur.calibrate.gradients import gradients
from secateur.calibrate.input_statistics import HiddenStates, collect, collect_passing
from secateur.core.context import RunContext
from secateur.core.estimated_size import EstimatedSize
from secateur.core.execution import CalibrationText, Execution
from secateur.core.footprint import Footprint, footprint
from secateur.core.graph import Graph, Group, Kind
from secateur.core.plan import Plan
from secateur.core.target import Target
from secateur.criteria.units import UNIT_CRITERIA, kinds_of
from secateur.model.handle import ModelHandle
from secateur.model.written.pruned_config import is_stock
from secateur.pipeline.prune.kinds import pruning
from secateur.pipeline.prune.rotation import check_way, rotated
from secateur.pipeline.prune.width.repair_units import biased_for, filled
from secateur.pipeline.prune.width.two_stage import ATTENTION, TwoStage
from secateur.pipeline.prune.width.two_stage import NAME as TWO_STAGE
from secateur.pipeline.prune.width.unit_ablation import UnitAblation
from secateur.pipeline.prune.width.unit_ranking import Ranked, Ranking, UnitScorer, scorer_for
from secateur.tensors.precision import arithmetic
from secateur.tensors.storage_dtype import storage_type
from secateur.transform.unit_repair import UNIT_REPAIRS, bias_for
from secateur_runtime.errors import UsageError, nearest

KINDS: tuple[Kind, ...] = ("ffn", "kv", "head", "hidden")
MOST = 0.75
"""No group loses more of its units than this, unless all lose the same share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Width:
    """What to narrow, and by how much: either `ratio` or `target`.

    units: kinds of groups, of `KINDS`.
    ratio: share of the parameters of those groups that goes.
    target: budgets, as `Target.parse` reads them, all of which must hold; the widest model that meets them is
    taken.
    criterion: how units are ranked, as `scorer_for` takes it; None for the default of each kind.
    allocation: a name of `SPREADS`; `uniform` gives the same width everywhere, a stock checkpoint.
    repair: a name of `UNIT_REPAIRS`: how the remaining inputs of each sub-block's last linear compensate for
    those that left.
    align: widths of FFNs and of the residual stream are multiples of it.
    uniform: insist on what transformers' own classes load, so on one width for all blocks.
    protect, layers: groups left whole and blocks narrowed, as `protected_groups` and `layers_named` read
    them.
    keep_heads: heads that stay in every block, at least.
    dtype: in which type the model will be stored, for budgets in bytes.
    rotate: how the model is rotated beforehand, one of `secateur.pipeline.prune.rotation.WAYS`; empty leaves
    it as it is.
    """

    units: tuple[str, ...] = ("ffn",)
    ratio: float | None = None
    target: str | None = None
    criterion: str | None = None
    allocation: str = "uniform"
    repair: str = "lsq"
    align: int = 32
    uniform: bool = False
    protect: Sequence[str] = ()
    layers: str | None = None
    keep_heads: int = 1
    dtype: str = "auto"
    rotate: str = ""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of units; raises UsageError for an unknown one."""
        for name in self.units:
            if name not in KINDS:
                raise UsageError(f"unknown units {name!r}{nearest(name, KINDS)}; known: {', '.join(KINDS)}")
        return tuple(kind for kind in KINDS if kind in self.units)

    @property
    def budgets(self) -> Target | None:
        """The target; raises TargetError for text that is none."""
        return None if self.target is None else Target.of(self.target)

    def check(self) -> None:
        """Raise UsageError for options that cannot work, or not together, with any model."""
        _ = self.budgets
        if (self.ratio is None) == (self.target is None):
            raise UsageError("say how much to narrow: either --ratio 0.2 or --target params=80%")
        if self.ratio is not None and not 0 < self.ratio < 1:
            raise UsageError(f"--ratio {self.ratio} is outside (0, 1)")
        if self.repair not in UNIT_REPAIRS:
            raise UsageError(
                f"--repair {self.repair!r} cannot repair a cut of units{nearest(self.repair, UNIT_REPAIRS)};"
                f" these can: {', '.join(UNIT_REPAIRS)}"
            )
        if self.uniform and SPREADS[self.allocation].name != "uniform":
            raise UsageError(
                f"--uniform and --allocation {self.allocation} contradict each other: leave one out"
            )
        if self.uniform and (self.protect or self.layers):
            raise UsageError(
                "--uniform narrows every block alike: leave out --protect and --layers, or --uniform"
            )
        if self.keep_heads > 1 and not {"kv", "head"} & set(self.units):
            raise UsageError(
                f"--keep-heads keeps heads, and --units {','.join(self.units)} cuts none: leave it out"
            )
        if self.allocation == TWO_STAGE and self.kinds != ("ffn",):
            raise UsageError(
                "--allocation 2ssp cuts FFNs, and drops attention sub-blocks by itself: leave out --units"
            )
        if set(self.units) == {"hidden"} and bias_for(self.repair) != "none":
            raise UsageError(
                f"--repair {self.repair} repairs sub-blocks that lose neurons or heads, and --units hidden"
                " takes none: leave it out"
            )
        if "hidden" in self.units and (self.protect or self.layers):
            raise UsageError("--units hidden narrows every block at once: leave out --protect and --layers")
        if "hidden" in self.units and self.allocation != "uniform":
            raise UsageError(
                f"--allocation {self.allocation} spreads units over blocks, and hidden channels run through"
                " all: only uniform can do --units hidden"
            )
        _ = SPREADS[self.allocation]
        scorers(self)

    def made_by(self) -> dict[str, str]:
        """Return what a plan records of it."""
        said = {
            "target": str(self.budgets or f"{self.ratio:g} of {','.join(self.kinds)}"),
            "units": ",".join(self.kinds),
            "unit_criterion": "+".join(dict.fromkeys(scorer.name for scorer in scorers(self).values())),
            "allocation": self.allocation,
            "repair": self.repair,
            "align": str(self.align),
            "dtype": self.dtype if self.dtype != "auto" else "",
            "protect": ",".join(self.protect),
            "layers": self.layers or "",
            "keep_heads": str(self.keep_heads) if self.keep_heads > 1 else "",
        }
        return {key: value for key, value in said.items() if value}


def _narrowed(goal: Width, size: EstimatedSize, graph: Graph) -> EstimatedSize:
    """Return the size of a model narrowed by `goal`."""
    if goal.budgets:
        return replace(size, inside=min(size.left_inside(limit) for limit in goal.budgets.limits))
    groups = [group for block in graph.blocks for group in block.groups if group.kind in goal.units]
    held = sum(graph.tensors[part.tensor].numel for group in groups for part in group.slices)
    gone = (goal.ratio or 0.0) * held / graph.parameters
    return replace(size, inside=size.inside - gone * (size.inside + size.outside))


@pruning("width", goal=Width, estimate=_narrowed, passes=6.0)
def decide_width(model: ModelHandle, width: Width, calibration: Calibration, context: RunContext) -> Plan:
    """Decide which units go: those that matter most stay in every block, as many as the budget allows.

    Raises UsageError for options that cannot work, TargetError naming the nearest target if the one asked for
    is out of reach, TextError if the calibration text is too short.
    """
    width.check()
    needs = _needs(width)
    if width.rotate:
        check_way(model, width.rotate)
    text: CalibrationText | None = None
    tokens: Tensor | None = None
    if width.rotate or needs or width.repair != "none":
        tokens, text = planned_tokens(model, calibration, context)
        if width.rotate:
            model = rotated(model, width.rotate, tokens, context.seed, context)
    groups = chosen_groups(model.graph, width)
    parts = {group.half for group in groups if group.half}
    stored = biased_for(model, width.repair, parts).graph
    ranked = rank_units(model, groups, width, tokens if needs else None, context)
    stages = TwoStage(model, ranked) if width.allocation == TWO_STAGE else None
    cuts = _cuts(model, stored, width, ranked, stages, tokens, context)
    keep = {name: one.keep(cuts[name]) for name, one in ranked.items() if cuts[name]}
    if not keep and not cuts.get(ATTENTION):
        first = min(
            (cut / one.curve.size for one in ranked.values() for cut in one.curve.cuts if cut), default=None
        )
        raise UsageError(
            "nothing can go: keep fewer heads, or align less"
            if first is None
            else f"less than one step would go, which is --ratio {first:.3g}"
        )
    plan = Plan(
        model=model.digest,
        keep=keep,
        drop=stages.chosen(cuts, tokens, context.progress) if stages and tokens is not None else (),
        execution=Execution(
            unit_repair=width.repair if keep else "none",
            rotation=width.rotate,
            calibration=text,
            seed=context.seed,
            dtype=width.dtype,
        ),
        made_by={
            **width.made_by(),
            "seed": str(context.seed),
            "secateur": version("secateur"),
            **({"rotate": width.rotate} if width.rotate else {}),
            **({"output_bias": bias} if (bias := filled(model, width.repair, parts)) else {}),
            **(text.facts if text else {}),
        },
    )
    if width.uniform and not is_stock(model, plan):
        raise UsageError(
            "these widths are the same in every block, but transformers' own class takes none such: change"
            " --align or --units, or leave out --uniform"
        )
    return plan


def scorers(width: Width) -> dict[Kind, UnitScorer]:
    """Return the criterion for each kind of units.

    Hidden channels pruned with other kinds get their own default where the criterion given cannot score them.
    """
    found: dict[Kind, UnitScorer] = {
        kind: scorer_for(width.criterion, kind) for kind in width.kinds if kind != "hidden"
    }
    if "hidden" in width.kinds:
        able = (
            width.criterion is not None
            and width.criterion in UNIT_CRITERIA
            and "hidden" in kinds_of(width.criterion)
        )
        found["hidden"] = scorer_for(width.criterion if able or not found else None, "hidden")
    return found


def chosen_groups(graph: Graph, width: Width) -> list[Group]:
    """Return the groups to narrow; raises UsageError if there are none."""
    spared = protected_groups(graph, width.protect)
    layers = layers_named(graph, width.layers) if width.layers else range(len(graph.blocks))
    inside = [group for block in graph.blocks if block.index in layers for group in block.groups] + [
        graph.hidden
    ]
    for kind in width.kinds:
        if all(group.kind != kind for group in inside):
            hint = (
                ": each query head has its own key-value head, so cut them together with --units kv"
                if kind == "head"
                else ""
            )
            raise UsageError(f"--units {kind}: the blocks to narrow have none{hint}")
    found = [group for group in inside if group.kind in width.kinds and group.name not in spared]
    if not found:
        raise UsageError("--protect and --layers leave nothing to narrow")
    return found


def _needs(width: Width) -> frozenset[str]:
    own = SPREADS[width.allocation].needs | ({"measure"} if width.allocation == TWO_STAGE else set())
    return own.union(*(scorer.needs for scorer in scorers(width).values()))


def rank_units(
    model: ModelHandle, groups: Sequence[Group], width: Width, tokens: Tensor | None, context: RunContext
) -> dict[str, Ranked]:
    """Show every block of the dense model to a ranking; without `tokens` no state passes through them."""
    ranking = Ranking(
        model.graph,
        groups,
        scorers(width),
        errors="errors" in SPREADS[width.allocation].needs,
        seed=context.seed,
    )
    stream = model.stream()
    hidden = HiddenStates(stream, torch.zeros(1, 1, dtype=torch.long) if tokens is None else tokens)
    if tokens is not None and ranking.graded:
        for found in gradients(stream, tokens, weights=ranking.graded, progress=context.progress):
            with stream.open(found.index) as live:
                ranking.grade(live, found.weights)
    context.progress.start("rank units", len(stream))
    with arithmetic("bfloat16"):
        for block in model.graph.blocks:
            with stream.open(block.index) as live:
                if tokens is None:
                    ranking.look(live, collect(live, block.linears, hidden, (), context.seed))
                else:
                    ranking.look(live, collect_passing(live, ranking.needs(block), hidden, context.seed))
                    ranking.scale(block, hidden)
            context.progress.step(f"block {block.index}")
    return {
        name: replace(ranked, curve=_bounded(ranked, model.graph, width))
        for name, ranked in ranking.results().items()
    }


def _bounded(ranked: Ranked, graph: Graph, width: Width) -> Curve:
    """Return the curve with what must stay; raises UsageError for more heads than there are."""
    group = ranked.group
    curve = ranked.curve
    least = 1 if width.allocation == "uniform" else math.ceil(curve.size * (1 - MOST))
    if group.kind in ("ffn", "hidden"):
        return replace(curve, align=width.align, least=least)
    target = width.budgets
    if group.kind == "kv" and target:
        # A budget of memory is met sooner by a head that takes its cache with it: what that holds counts as
        # parameters.
        values = 2 * graph.blocks[int(group.name.partition(".")[0])].shape.head_dim
        curve = replace(
            curve,
            price=curve.price
            + target.cache_bytes(values) // storage_type(width.dtype, graph.tensors).itemsize,
        )
    if width.keep_heads > group.size:
        raise UsageError(f"--keep-heads {width.keep_heads}: {group.name} has only {group.size}")
    return replace(curve, least=max(least, math.ceil(width.keep_heads * curve.size / group.size)))


def _cuts(
    model: ModelHandle,
    stored: Graph,
    width: Width,
    ranked: Mapping[str, Ranked],
    stages: TwoStage | None,
    tokens: Tensor | None,
    context: RunContext,
) -> dict[str, int]:
    """Spread the budget: how many steps of every group go. `stored` has the biases that the repair adds."""
    entry = SPREADS[width.allocation]
    curves = stages.curves if stages else {name: one.curve for name, one in ranked.items()}
    check_cuts(curves)
    ablation = (
        UnitAblation(model.stream(), ranked, tokens)
        if tokens is not None and entry.needs & {"influence", "sensitivity", "measure"}
        else None
    )
    weighed = ablation.sensitivity(context.progress) if ablation and "sensitivity" in entry.needs else {}
    shown = SpreadContext(
        influence=ablation.influence if ablation else {},
        sensitivity=weighed,
        measure=ablation,
        seed=context.seed,
        progress=context.progress,
    )
    bytes_each = storage_type(width.dtype, model.graph.tensors).itemsize

    def spread(ratio: float) -> dict[str, int]:
        return stages.cuts(ratio) if stages else entry.function(curves, ratio, shown)

    def size(cuts: Mapping[str, int]) -> Footprint:
        keep = {name: one.keep(cuts[name]) for name, one in ranked.items() if cuts.get(name)}
        return footprint(stored, keep, stages.foreseen(cuts) if stages else (), bytes_each)

    target = width.budgets
    if target is None:
        return spread(width.ratio or 0.0)
    most = parameters_gone(curves, {name: curve.cuts[-1] for name, curve in curves.items()})
    highest = (
        1.0 if entry.name == "uniform" else most / sum(curve.size * curve.price for curve in curves.values())
    )
    whole = footprint(model.graph, {}, (), bytes_each)
    return meet(target, curves, spread, size, whole=whole, highest=highest, costly="measure" in entry.needs)
