"""The whole flow on one page: open a model, decide a plan, do it block by block, prove the result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from secateur.calibrate.text import read_text, windows
from secateur.core.errors import UsageError
from secateur.core.pattern import Pattern
from secateur.core.plan import Plan
from secateur.core.progress import Progress, Silent
from secateur.measure.perplexity import Quality, measure
from secateur.model.arithmetic import Arithmetic, arithmetic
from secateur.model.opened import open_model
from secateur.pipeline.calibration import Calibration
from secateur.pipeline.depth import Depth, decide_depth
from secateur.pipeline.methods import method_named
from secateur.pipeline.run import Pruned, Settings, execute
from secateur.pipeline.sparsity import decide_sparsity
from secateur.pipeline.verify import Verified, verify
from secateur.pipeline.width import Width, decide_width
from secateur.transform.repair import REPAIRS

__all__ = [
    "Calibration",
    "Depth",
    "Plan",
    "Pruned",
    "Quality",
    "Settings",
    "Verified",
    "Width",
    "apply",
    "evaluate",
    "plan",
    "plan_depth",
    "plan_width",
    "prune",
    "verify",
]


def plan(
    src: str,
    *,
    sparsity: str | float,
    method: str = "auto",
    criterion: str | None = None,
    repair: str | None = None,
    scope: str | None = None,
    allocation: str | None = None,
    calibration: Calibration | None = None,
    protect: Sequence[str] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> Plan:
    """Decide which linears of the model `src` get which sparsity.

    sparsity: a ratio of zeros (`0.5`) or a pattern (`"2:4"`: two of every four survive).
    method: a row of `secateur.pipeline.methods.METHODS` or `auto`; `criterion`, `repair`, `scope` and `allocation` replace
        parts of it.
    protect: rules of `secateur.allocate.protect.protected`.
    Raises SecateurError for a model, a text or options that cannot work.
    """
    pattern = Pattern.parse(str(sparsity))
    chosen = method_named(method).replaced(criterion, repair, scope)
    spread = allocation or ("uniform" if pattern.m else chosen.allocation)
    return decide_sparsity(open_model(src), pattern, chosen, spread, calibration or Calibration(), protect, seed, progress or Silent())


def plan_width(src: str, width: Width, *, calibration: Calibration | None = None, repair: str = "lsq", seed: int = 0, progress: Progress | None = None) -> Plan:
    """Decide which FFN neurons and KV groups the model `src` keeps; see `Width`.

    repair: `lsq` makes the surviving inputs of each half's last linear answer for those that left; `none` does not.
    Raises SecateurError for a model, a text or options that cannot work.
    """
    return decide_width(open_model(src), width, calibration or Calibration(), REPAIRS[repair].name, seed, progress or Silent())


def plan_depth(src: str, depth: Depth, *, calibration: Calibration | None = None, seed: int = 0, progress: Progress | None = None) -> Plan:
    """Decide which blocks, or halves of blocks, the model `src` does without; see `Depth`.

    Raises SecateurError for a model, a text or options that cannot work.
    """
    return decide_depth(open_model(src), depth, calibration or Calibration(), seed, progress or Silent())


def apply(plan: Plan, src: str, out: str | Path, *, settings: Settings | None = None, progress: Progress | None = None) -> Pruned:
    """Do what `plan` says to the model `src` and write the folder `out`, reloaded and compared before it appears.

    Raises PlanError if the plan is for another model, OutputError if `out` cannot be written, VerificationError if the
    reloaded folder does not compute what was meant.
    """
    return execute(open_model(src), plan, Path(out), settings or Settings(), progress or Silent())


def prune(
    src: str,
    out: str | Path,
    *,
    sparsity: str | float,
    method: str = "auto",
    criterion: str | None = None,
    repair: str | None = None,
    scope: str | None = None,
    allocation: str | None = None,
    calibration: Calibration | None = None,
    protect: Sequence[str] = (),
    seed: int = 0,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Pruned:
    """Plan and apply in one call; see `plan` and `apply`."""
    made = plan(
        src,
        sparsity=sparsity,
        method=method,
        criterion=criterion,
        repair=repair,
        scope=scope,
        allocation=allocation,
        calibration=calibration,
        protect=protect,
        seed=seed,
        progress=progress,
    )
    return apply(made, src, out, settings=settings, progress=progress)


def evaluate(
    src: str,
    *,
    text: str = "builtin",
    window: int = 2048,
    count: int | None = 20,
    reference: str | None = None,
    compute: Arithmetic = "float32",
    progress: Progress | None = None,
) -> Quality:
    """Measure perplexity on `count` windows of `window` tokens of `text`, and the divergence from `reference`.

    The text is tokenised whole, without special tokens, and cut without overlap; each window predicts its last
    `window - 1` tokens. Raises TextError if the text is too short, UsageError if the tokenizers differ.
    """
    model = open_model(src)
    if window < 2:
        raise UsageError(f"a window of {window} tokens predicts nothing: --window must be at least 2")
    tokens = windows(read_text(text), model.source.tokenizer(), window, count)
    other = open_model(reference) if reference else None
    if other and other.graph.vocab_size != model.graph.vocab_size:
        raise UsageError(f"{reference} has another vocabulary than {src}: their predictions cannot be compared")
    with arithmetic(compute):
        return measure(model.stream(), tokens, progress or Silent(), other.stream() if other else None)
