"""Decide which linears get which sparsity."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from torch import Tensor

from secateur.allocate import ALLOCATIONS
from secateur.allocate.protect import protected
from secateur.calibrate.collect import HiddenStates, collect
from secateur.core.errors import UsageError
from secateur.core.pattern import Pattern
from secateur.core.plan import Plan
from secateur.core.progress import Progress
from secateur.criteria import CRITERIA
from secateur.model.arithmetic import arithmetic
from secateur.model.opened import Opened
from secateur.pipeline.calibration import Calibration, calibration_tokens, provenance
from secateur.pipeline.methods import Method


def decide_sparsity(
    model: Opened, pattern: Pattern, method: Method, spread: str, calibration: Calibration, protect: Sequence[str], seed: int, progress: Progress
) -> Plan:
    """Return the plan that gives every unprotected linear its sparsity.

    spread: name of an allocation; a pattern is the same everywhere, so only `uniform` fits one.
    Raises SecateurError for options that cannot work with this model.
    """
    names = _prunable(model, pattern, protect)
    made_by = {"target": str(pattern), "allocation": spread, "seed": str(seed), "secateur": version("secateur"), **method.as_strings()}
    if protect:
        made_by["protect"] = ",".join(protect)
    if pattern.m and spread != "uniform":
        raise UsageError(f"--allocation {spread} cannot spread the pattern {pattern}, which is the same everywhere: leave it out")
    ratios = dict.fromkeys(names, pattern.ratio)
    if method.needs or ALLOCATIONS[spread].needs:
        tokens = calibration_tokens(model, calibration, seed)
        made_by |= provenance(calibration, tokens)
        if spread != "uniform":
            ratios = _spread(model, pattern.ratio, method, spread, names, tokens, progress)
    sparsity = {name: str(pattern if pattern.m else Pattern(ratio)) for name, ratio in ratios.items()}
    return Plan(model=model.digest, sparsity=sparsity, made_by=made_by)


def _prunable(model: Opened, pattern: Pattern, protect: Sequence[str]) -> list[str]:
    spared = protected(model.graph, protect)
    linears = [linear for linear in model.graph.linears if linear.tensor not in spared]
    if not linears:
        raise UsageError("--protect leaves nothing to prune")
    for linear in linears:
        pattern.check(linear.tensor, linear.in_features)
    return [linear.tensor for linear in linears]


def _spread(model: Opened, budget: float, method: Method, spread: str, names: list[str], tokens: Tensor, progress: Progress) -> dict[str, float]:
    """Show the allocation every block of the dense model and return its ratios."""
    entry = ALLOCATIONS[spread]
    allocation = entry.function(budget, method.scorer or CRITERIA["wanda"].function)
    stream, wanted = model.stream(), frozenset(names)
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
