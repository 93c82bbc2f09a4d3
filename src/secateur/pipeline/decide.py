"""From options to a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from torch import Tensor

from secateur.allocate import ALLOCATIONS
from secateur.allocate.protect import protected
from secateur.apply.methods import Method
from secateur.calibrate.collect import HiddenStates, collect
from secateur.calibrate.text import calibration_digest, read_text, windows
from secateur.core.errors import PlanError, UsageError
from secateur.core.pattern import Pattern
from secateur.core.plan import Plan
from secateur.core.progress import Progress
from secateur.criteria import CRITERIA
from secateur.model.arithmetic import arithmetic
from secateur.model.opened import Opened
from secateur.pipeline.sample import sample_windows


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Which text is read: `samples` windows of `window` tokens from the start of `text`.

    text: as `secateur.calibrate.text.read_text` takes it, or `self`: sampled from the model.
    """

    text: str = "builtin"
    samples: int = 64
    window: int = 512


def calibration_tokens(model: Opened, calibration: Calibration, seed: int) -> Tensor:
    """Return token ids `[samples, window]`; raises TextError if the text is too short."""
    if calibration.text == "self":
        return sample_windows(model, calibration.samples, calibration.window, seed)
    return windows(read_text(calibration.text), model.source.tokenizer(), calibration.window, calibration.samples)


def decide(
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
        made_by |= {"calibration": calibration.text, "samples": str(calibration.samples), "window": str(calibration.window)}
        made_by["calibration_digest"] = calibration_digest(tokens)
        if spread != "uniform":
            ratios = _spread(model, pattern.ratio, method, spread, names, tokens, progress)
    sparsity = {name: str(pattern if pattern.m else Pattern(ratio)) for name, ratio in ratios.items()}
    return Plan(model=model.digest, sparsity=sparsity, made_by=made_by)


def replay_calibration(model: Opened, plan: Plan) -> Tensor:
    """Return the token ids a plan was made with; raises PlanError if they cannot be had again."""
    made_by = plan.made_by
    try:
        calibration = Calibration(text=made_by["calibration"], samples=int(made_by["samples"]), window=int(made_by["window"]))
        seed = int(made_by.get("seed", "0"))
    except (KeyError, ValueError):
        raise PlanError("plan needs calibration text but made_by does not say which: it needs calibration, samples and window") from None
    tokens = calibration_tokens(model, calibration, seed)
    if calibration_digest(tokens) != made_by.get("calibration_digest"):
        raise PlanError(f"calibration text {calibration.text} is not what the plan was made with: restore it, or make a new plan")
    return tokens


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
