"""Search width and depth together for one target: make plans that meet it, measure each, take the best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

from torch import Tensor

from secateur.allocate.protect import layers_named, protected_parts
from secateur.allocate.units import check_cuts
from secateur.calibrate.calibration import Calibration, calibration_tokens, text_of
from secateur.calibrate.text import joined
from secateur.core.context import RunContext
from secateur.core.estimated_size import EstimatedSize
from secateur.core.execution import SEAM, CalibrationText, Execution
from secateur.core.graph import Graph, Group
from secateur.core.plan import Plan
from secateur.core.progress import Progress
from secateur.core.target import Target, refuse_if_met
from secateur.criteria.depth import DEPTH_CRITERIA
from secateur.model.handle import ModelHandle
from secateur.model.written.pruned_config import is_stock
from secateur.pipeline.prune.auto.candidates import (
    Candidate,
    ModelBudget,
    Narrowing,
    distinct,
    narrowed,
    shallower,
    unreachable,
)
from secateur.pipeline.prune.auto.plan_divergence import PlanDivergence
from secateur.pipeline.prune.depth.block_ablation import passing
from secateur.pipeline.prune.depth.search import RemovalSearch, in_order
from secateur.pipeline.prune.kinds import pruning
from secateur.pipeline.prune.width.decide import Width, rank_units
from secateur.pipeline.prune.width.unit_ablation import UnitAblation
from secateur.tensors.precision import arithmetic
from secateur.tensors.storage_dtype import storage_type
from secateur_runtime.errors import UsageError

HELD_OUT = 8
"""Windows on which plans are compared, the last ones; half of all at most."""
LONG = 2048
"""Tokens to which these windows are joined: attention heads are missed most far into a text."""
FIT = 16
"""Windows from which repairs learn while plans are compared; those of the run learn from all."""
SEARCHED = 2048
"""Tokens whose states say how far blocks turn them."""
UNITS = ("ffn", "kv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Auto:
    """A size to reach by width, depth, or both.

    target: budgets, as `Target.parse` reads them, all of which must hold.
    units: kinds of groups that width may narrow, of `UNITS`; with several kinds, FFNs alone are tried too.
    Short calibration texts undervalue heads.
    repair: None: the remaining weights compensate for what is removed, where the family can have that;
    `none`: they do not.
    align: FFNs stay multiples of it. uniform: insist on what transformers' own classes load.
    protect: what stays whole, by rules over groups, blocks, sub-blocks and tensors; layers: blocks that may
    change, as `layers_named` reads them.
    dtype: in which type the model will be stored, for budgets in bytes.
    """

    target: str
    units: tuple[str, ...] = ("ffn",)
    repair: str | None = None
    align: int = 32
    uniform: bool = False
    protect: Sequence[str] = ()
    layers: str | None = None
    dtype: str = "auto"

    @property
    def budgets(self) -> Target:
        """The target; raises TargetError for text that is none."""
        return Target.of(self.target)

    def check(self) -> None:
        """Raise UsageError for options that cannot work, or not together, with any model."""
        _ = self.budgets
        if not self.units or set(self.units) - set(UNITS):
            raise UsageError(
                f"--method auto narrows {' and '.join(UNITS)}, not --units {','.join(self.units)}: use"
                " --method width for others"
            )
        if self.repair not in (None, "none"):
            raise UsageError(
                f"--method auto chooses the repair by itself: leave out --repair {self.repair}, or use none"
            )
        if self.uniform and (self.protect or self.layers):
            raise UsageError(
                "--uniform narrows every block alike: leave out --protect and --layers, or --uniform"
            )

    def execution(
        self, model: ModelHandle, candidate: Candidate, text: CalibrationText, seed: int
    ) -> Execution:
        """Return how a plan of `candidate` is carried out.

        A family with norms behind its sub-blocks cannot close a gap.
        """
        closes_gap = candidate.drop and len(model.family.ffn_norms) == 1
        return Execution(
            unit_repair="lsq" if candidate.keep and not self.repair else "none",
            gap_repair=SEAM if closes_gap and not self.repair else "none",
            calibration=text,
            seed=seed,
            dtype=self.dtype,
        )

    def made_by(self) -> dict[str, str]:
        """Return what a plan records of it."""
        said = {
            "target": str(self.budgets),
            "units": ",".join(self.units),
            "allocation": "uniform" if self.uniform else "sensitivity",
            "align": str(self.align),
            "dtype": self.dtype if self.dtype != "auto" else "",
            "protect": ",".join(self.protect),
            "layers": self.layers or "",
        }
        return {key: value for key, value in said.items() if value}


def _smaller(goal: Auto, size: EstimatedSize, _graph: Graph) -> EstimatedSize:
    """Return the size of a model that `goal` makes."""
    return replace(size, inside=min(size.left_inside(limit) for limit in goal.budgets.limits))


@pruning("auto", goal=Auto, estimate=_smaller, passes=40.0)
def decide_auto(model: ModelHandle, auto: Auto, calibration: Calibration, context: RunContext) -> Plan:
    """Decide which units and blocks go: of several plans that meet the target, the one that changes least.

    That is the one whose predictions diverge least from the dense model's on held-out text.
    Raises UsageError for options that cannot work, TargetError naming the nearest target if the one asked for
    is out of reach, TextError if the calibration text is too short.
    """
    auto.check()
    budget = ModelBudget(model.graph, auto.budgets, storage_type(auto.dtype, model.graph.tensors).itemsize)
    refuse_if_met(budget.target, budget.whole)
    groups, parts = _free(model.graph, auto)
    tokens = calibration_tokens(model, calibration, context.seed)
    if len(tokens) < 2:
        raise UsageError(
            "--samples 1: one part of the text finds candidates and the rest compares them, so at least 2"
            " windows are needed"
        )
    seen = tokens[: -min(HELD_OUT, len(tokens) // 2)]
    narrowings = _narrowings(model, auto, budget, groups, seen, context)
    orders = _orders(model, auto, budget, parts, seen)
    mixed = (one for name, order in orders.items() for one in shallower(budget, narrowings, name, order))
    candidates = distinct([*narrowed(narrowings), *mixed])
    if not candidates:
        raise unreachable(budget, narrowings, orders)
    text = text_of(calibration, tokens)
    made_by = auto.made_by() | {"seed": str(context.seed), "secateur": version("secateur")} | text.facts
    plans = {
        one.name: _planned(model, one, auto.execution(model, one, text, context.seed), made_by)
        for one in candidates
    }
    if auto.uniform:
        plans = {name: plan for name, plan in plans.items() if is_stock(model, plan)}
    if not plans:
        raise UsageError(
            f"nothing that transformers' own classes load meets {budget.target}: change --align or --units,"
            " or leave out --uniform"
        )
    held_out = joined(tokens[len(seen) :], min(LONG, model.source.config["max_position_embeddings"]))
    return _best(plans, PlanDivergence(model, seen[:FIT], held_out, context.seed), context.progress)


def _planned(model: ModelHandle, candidate: Candidate, how: Execution, made_by: Mapping[str, str]) -> Plan:
    repairs = [repair for repair in (how.unit_repair, how.gap_repair) if repair != "none"]
    return Plan(
        model=model.digest,
        keep=candidate.keep,
        drop=candidate.drop,
        execution=how,
        made_by={**made_by, "repair": "+".join(repairs) or "none"},
    )


def _best(plans: Mapping[str, Plan], divergence: Callable[[Plan], float], progress: Progress) -> Plan:
    """Return the plan that diverges least, with what the others did written into it."""
    progress.start("compare plans", len(plans))
    costs: dict[str, float] = {}
    for name, plan in plans.items():
        costs[name] = divergence(plan)
        progress.step(name)
        progress.note(f"{name}: {costs[name]:.4f}")
    ordered = sorted(costs, key=costs.__getitem__)
    best = plans[ordered[0]]
    tried = "; ".join(f"{name} {costs[name]:.4f}" for name in ordered)
    return replace(best, made_by={**best.made_by, "tried": tried})


def _free(graph: Graph, auto: Auto) -> tuple[list[Group], list[str]]:
    """Return the groups that may be narrowed and the sub-blocks that may go.

    A sub-block goes only with all of its groups. The first block, which makes the states all others change,
    and the last, which the head reads, are only narrowed.
    Raises UsageError for rules that match nothing.
    """
    layers = layers_named(graph, auto.layers) if auto.layers else range(len(graph.blocks))
    spared = set(protected_parts(graph, auto.protect))
    own = [
        (group, f"{block.index}.{group.half}")
        for block in graph.blocks
        for group in block.groups
        if block.index in layers
    ]
    spared |= {part for group, part in own if group.name in spared}
    groups = [group for group, part in own if group.kind in auto.units and not {group.name, part} & spared]
    inner = [block.index for block in graph.blocks[1:-1] if block.index in layers]
    parts = [name for index in inner for part in ("attn", "ffn") if (name := f"{index}.{part}") not in spared]
    if not groups and not parts:
        raise UsageError("--protect and --layers leave nothing to cut")
    return groups, parts


def _narrowings(
    model: ModelHandle,
    auto: Auto,
    budget: ModelBudget,
    groups: list[Group],
    tokens: Tensor,
    context: RunContext,
) -> dict[str, Narrowing]:
    """Rank the units once, and return the ways to narrow, by name: FFNs alone, and all kinds together."""
    if not groups:
        return {}
    spread = "uniform" if auto.uniform else "sensitivity"
    width = Width(units=auto.units, target=auto.target, allocation=spread, align=auto.align, dtype=auto.dtype)
    ranked = rank_units(model, groups, width, tokens, context)
    weighed = (
        {} if auto.uniform else UnitAblation(model.stream(), ranked, tokens).sensitivity(context.progress)
    )
    whole = Narrowing(budget, ranked, weighed)
    check_cuts({name: one.curve for name, one in ranked.items()})
    ways = dict.fromkeys(
        tuple(kind for kind in UNITS if kind in kinds)
        for kinds in (("ffn",), auto.units)
        if set(kinds) <= set(auto.units)
    )
    return {
        ",".join(kinds): whole.only(kinds) for kinds in ways if any(group.kind in kinds for group in groups)
    }


def _orders(
    model: ModelHandle, auto: Auto, budget: ModelBudget, parts: list[str], tokens: Tensor
) -> dict[str, tuple[str, ...]]:
    """Return what goes by depth, least missed first, until the budget is met or nothing is left.

    Whole blocks in one order and, unless all blocks must stay alike, sub-blocks in another.
    """
    whole = [
        index
        for name in parts
        if name.endswith(".attn") and f"{(index := name.partition('.')[0])}.ffn" in parts
    ]
    ways = {"blocks": whole} | ({} if auto.uniform else {"halves": parts})
    found: dict[str, tuple[str, ...]] = {}
    with arithmetic("bfloat16"):
        states, places = passing(model.stream(), tokens[: max(1, SEARCHED // tokens.shape[1])], last=False)
        for way, names in ways.items():
            if prices := {name: price for name in names if (price := budget.price(name)) > 0}:
                found[way] = in_order(
                    _goes(budget, prices), DEPTH_CRITERIA["influence"].function, states, places
                ).drop
    return found


def _goes(budget: ModelBudget, prices: Mapping[str, int]) -> RemovalSearch:
    return RemovalSearch(prices, lambda drop: len(drop) == len(prices) or budget.met({}, drop))
