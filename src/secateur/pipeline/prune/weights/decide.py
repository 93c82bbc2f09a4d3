"""Decide which linears get which sparsity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

from torch import Tensor

from secateur.allocate import ALLOCATIONS
from secateur.allocate.protect import protected
from secateur.calibrate.calibration import Calibration, calibration_tokens, text_of
from secateur.calibrate.input_statistics import HiddenStates, collect
from secateur.core.context import RunContext
from secateur.core.estimated_size import EstimatedSize
from secateur.core.execution import CalibrationText
from secateur.core.graph import Graph
from secateur.core.pattern import Pattern
from secateur.core.plan import Plan
from secateur.core.progress import Progress
from secateur.criteria import CRITERIA
from secateur.model.handle import ModelHandle
from secateur.pipeline.prune.kinds import pruning
from secateur.pipeline.prune.rotation import check_way, rotated
from secateur.pipeline.prune.weights.methods import WeightMethod, method_named
from secateur.tensors.precision import arithmetic
from secateur_runtime.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparsity:
    """How many weights become zero, and which.

    sparsity: a ratio of zeros (`0.5`) or a pattern (`"2:4"`: two of every four survive).
    method: a name of `secateur.pipeline.prune.weights.methods.weight_methods` or `auto`; `criterion`,
    `repair`, `scope` and `allocation` replace parts of it.
    protect: rules of `secateur.allocate.protect.protected`.
    rotate: how the model is rotated beforehand, one of `secateur.pipeline.prune.rotation.WAYS`; empty leaves
    it as it is.
    """

    sparsity: str | float
    method: str = "auto"
    criterion: str | None = None
    repair: str | None = None
    scope: str | None = None
    allocation: str | None = None
    protect: Sequence[str] = ()
    rotate: str = ""

    @property
    def pattern(self) -> Pattern:
        """The ratio or the pattern of zeros; raises UsageError for text that is neither."""
        return Pattern.parse(str(self.sparsity))

    @property
    def weight_method(self) -> WeightMethod:
        """The named method with its replaced parts; raises UsageError for an unknown name."""
        return method_named(self.method).replaced(self.criterion, self.repair, self.scope)

    @property
    def spread(self) -> str:
        """Name of the allocation: a pattern is the same everywhere, so there is nothing to spread."""
        return self.allocation or ("uniform" if self.pattern.m else method_named(self.method).allocation)

    def check(self) -> None:
        """Raise UsageError for options that cannot work, or not together, with any model."""
        _ = self.weight_method
        _ = ALLOCATIONS[self.spread]
        if self.pattern.m and self.spread != "uniform":
            raise UsageError(
                f"--allocation {self.spread} cannot spread the pattern {self.pattern}, which is the same"
                " everywhere: leave it out"
            )


def _with_zeros(goal: Sparsity, size: EstimatedSize, _graph: Graph) -> EstimatedSize:
    """Return the size of a model whose zeros stay in their place."""
    return replace(size, zeros=goal.pattern.ratio)


@pruning("weights", goal=Sparsity, estimate=_with_zeros, passes=2.2)
def decide_sparsity(
    model: ModelHandle, sparsity: Sparsity, calibration: Calibration, context: RunContext
) -> Plan:
    """Decide which single weights become zero: every unprotected linear gets its sparsity.

    Raises SecateurError for options that cannot work with this model.
    """
    sparsity.check()
    pattern = sparsity.pattern
    method = sparsity.weight_method
    spread = sparsity.spread
    check_way(model, sparsity.rotate)
    text: CalibrationText | None = None
    tokens: Tensor | None = None
    if sparsity.rotate or method.needs or ALLOCATIONS[spread].needs:
        tokens = calibration_tokens(model, calibration, context.seed)
        text = text_of(calibration, tokens)
        model = rotated(model, sparsity.rotate, tokens, context.seed, context)
    names = _prunable(model, pattern, sparsity.protect)
    ratios = dict.fromkeys(names, pattern.ratio)
    if spread != "uniform" and tokens is not None:
        ratios = _spread(model, pattern.ratio, method, spread, names, tokens, context.progress)
    made_by = {
        "target": str(pattern),
        "allocation": spread,
        "seed": str(context.seed),
        "secateur": version("secateur"),
        **method.as_strings(),
        "rotate": sparsity.rotate,
        "protect": ",".join(sparsity.protect),
        **(text.facts if text else {}),
    }
    return Plan(
        model=model.digest,
        sparsity={name: str(pattern if pattern.m else Pattern(ratio)) for name, ratio in ratios.items()},
        execution=method.execution(rotation=sparsity.rotate, calibration=text, seed=context.seed),
        made_by={key: value for key, value in made_by.items() if value or key == "criterion"},
    )


def _prunable(model: ModelHandle, pattern: Pattern, protect: Sequence[str]) -> list[str]:
    spared = protected(model.graph, protect)
    linears = [linear for linear in model.graph.linears if linear.tensor not in spared]
    if not linears:
        raise UsageError("--protect leaves nothing to prune")
    for linear in linears:
        pattern.check(linear.tensor, linear.in_features)
    return [linear.tensor for linear in linears]


def _spread(
    model: ModelHandle,
    budget: float,
    method: WeightMethod,
    spread: str,
    names: list[str],
    tokens: Tensor,
    progress: Progress,
) -> dict[str, float]:
    """Show the allocation every block of the dense model and return its ratios."""
    entry = ALLOCATIONS[spread]
    allocation = entry.function(budget, method.scorer or CRITERIA["wanda"].function)
    stream = model.stream()
    wanted = frozenset(names)
    hidden = HiddenStates(stream, tokens)
    progress.start(f"allocate ({spread})", len(stream))
    with arithmetic("bfloat16"):
        for index, block in enumerate(model.graph.blocks):
            with stream.open(index) as live:
                linears = tuple(linear for linear in block.linears if linear.tensor in wanted)
                if linears:
                    stats = collect(live, linears, hidden, entry.needs | method.needs)
                    allocation.observe(live, linears, stats, next(hidden.batches()))
                hidden.advance(live)
            progress.step(f"block {index}")
    return allocation.ratios()
