"""The whole flow on one page: open a model, decide a plan, do it block by block, prove the result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from secateur.calibrate.text import read_text, windows
from secateur.core.errors import UsageError
from secateur.core.plan import Plan
from secateur.core.progress import Progress, Silent
from secateur.measure.perplexity import Quality, measure
from secateur.model.arithmetic import Arithmetic, arithmetic
from secateur.model.opened import open_model
from secateur.pipeline.across import measure_across, same_tokens
from secateur.pipeline.advice import Advice, advise
from secateur.pipeline.auto import Auto, decide_auto
from secateur.pipeline.bias import Audit, audit_bias
from secateur.pipeline.calibration import Calibration
from secateur.pipeline.depth import Depth, decide_depth
from secateur.pipeline.distill import Distill
from secateur.pipeline.integers import Integers, Quantized, quantize_opened
from secateur.pipeline.interleave import Interleaved, interleave
from secateur.pipeline.local import Local
from secateur.pipeline.native import Natively, measure_natively
from secateur.pipeline.recovery import How, Recovered
from secateur.pipeline.recovery import recover as recover_opened
from secateur.pipeline.run import Pruned, Settings, execute
from secateur.pipeline.sparsity import Sparsity, decide_sparsity
from secateur.pipeline.tasks import Tasked, evaluate_tasks
from secateur.pipeline.verify import Verified, verify
from secateur.pipeline.vocab import Vocab, decide_vocab
from secateur.pipeline.width import Width, decide_width

__all__ = [
    "Advice",
    "Audit",
    "Auto",
    "Calibration",
    "Depth",
    "Distill",
    "How",
    "Integers",
    "Interleaved",
    "Local",
    "Natively",
    "Plan",
    "Pruned",
    "Quality",
    "Quantized",
    "Recovered",
    "Settings",
    "Sparsity",
    "Tasked",
    "Verified",
    "Vocab",
    "Width",
    "advise",
    "apply",
    "audit_bias",
    "evaluate",
    "evaluate_tasks",
    "plan",
    "prune",
    "quantize",
    "recover",
    "verify",
]

Goal = Sparsity | Width | Depth | Vocab | Auto
"""What should go: weights, units, blocks, tokens, or whatever units and blocks serve a size best."""


def plan(
    src: str, goal: Goal | None = None, *, calibration: Calibration | None = None, seed: int = 0, progress: Progress | None = None, **weights: Any
) -> Plan:
    """Decide what goes from the model `src`.

    goal: a `Sparsity`, a `Width`, a `Depth`, a `Vocab` or an `Auto`; left out, `weights` are the fields of a `Sparsity`:
        `plan("model", sparsity=0.5, method="wanda")`.
    Raises SecateurError for a model, a text or options that cannot work.
    """
    if goal is not None and weights:
        raise UsageError(f"{', '.join(weights)} would be ignored beside a {type(goal).__name__}: put them into it")
    model, text, shown = open_model(src), calibration or Calibration(), progress or Silent()
    match goal or Sparsity(**weights):
        case Sparsity() as sparsity:
            return decide_sparsity(model, sparsity, text, seed, shown)
        case Width() as width:
            return decide_width(model, width, text, seed, shown)
        case Depth() as depth:
            return decide_depth(model, depth, text, seed, shown)
        case Vocab() as vocab:
            return decide_vocab(model, vocab, text, seed, shown)
        case Auto() as auto:
            return decide_auto(model, auto, text, seed, shown)


def apply(plan: Plan, src: str, out: str | Path, *, settings: Settings | None = None, progress: Progress | None = None) -> Pruned:
    """Do what `plan` says to the model `src` and write the folder `out`, reloaded and compared before it appears.

    Raises PlanError if the plan is for another model, OutputError if `out` cannot be written, VerificationError if the
    reloaded folder does not compute what was meant.
    """
    wanted = settings or Settings()
    if wanted.dtype == "auto":
        # A budget in bytes reckoned with this type.
        wanted = replace(wanted, dtype=plan.made_by.get("dtype", "auto"))
    return execute(open_model(src), plan, Path(out), wanted, progress or Silent())


def prune(
    src: str,
    out: str | Path,
    goal: Goal | None = None,
    *,
    calibration: Calibration | None = None,
    seed: int = 0,
    settings: Settings | None = None,
    progress: Progress | None = None,
    **weights: Any,
) -> Pruned:
    """Plan and apply in one call; see `plan` and `apply`."""
    made = plan(src, goal, calibration=calibration, seed=seed, progress=progress, **weights)
    return apply(made, src, out, settings=settings, progress=progress)


def recover(
    src: str,
    out: str | Path,
    how: How | Interleaved | None = None,
    *,
    teacher: str,
    calibration: Calibration | None = None,
    seed: int = 0,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Recovered:
    """Train the pruned model `src` towards the dense model `teacher` it was made from, and write the folder `out`.

    how: a `Local` (the default), a `Distill`, or an `Interleaved`, for which `src` is the dense model. What is trained keeps its zeros;
    held-out windows of the calibration text decide whether it is any better, and where it is not, the weights stay as they were.
    Raises SecateurError for models, texts or options that cannot work, VerificationError if the reloaded folder does not
    compute what was meant; nothing is left in place then.
    """
    wanted, shown, stored = how or Local(), progress or Silent(), settings or Settings()
    text = calibration or Calibration(samples=wanted.samples)
    if isinstance(wanted, Interleaved):
        return interleave(src, teacher, wanted, text, Path(out), seed=seed, settings=stored, progress=shown)
    return recover_opened(open_model(src), open_model(teacher), wanted, text, Path(out), seed=seed, settings=stored, progress=shown)


def quantize(
    src: str,
    out: str | Path,
    how: Integers | None = None,
    *,
    calibration: Calibration | None = None,
    seed: int = 0,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Quantized:
    """Round the weights of the model `src` to integers and write the folder `out`, packed, reloaded and compared.

    how: an `Integers`; 4 bits in groups of 32 by GPTQ if left out. Weights that are zero stay zero.
    Raises SecateurError for a model, a text or options that cannot work, VerificationError if the reloaded folder does not
    compute what was meant; nothing is left in place then.
    """
    text, wanted = calibration or Calibration(), settings or Settings()
    return quantize_opened(open_model(src), how or Integers(), text, Path(out), seed=seed, settings=wanted, progress=progress or Silent())


def evaluate(
    src: str,
    *,
    text: str = "builtin",
    window: int = 2048,
    count: int | None = 20,
    reference: str | None = None,
    compute: Arithmetic = "float32",
    native: Natively | None = None,
    progress: Progress | None = None,
) -> Quality:
    """Measure perplexity on `count` windows of `window` tokens of `text`, and the divergence from `reference`.

    The text is tokenised whole, without special tokens, and cut without overlap; each window predicts its last
    `window - 1` tokens. native: run `src` in the native backend, as this says, instead of torch.
    Where `reference` reads the text as other tokens, the windows are its own, and figures are per token of it: see `measure_across`.
    Raises TextError if the text is too short, UsageError if the tokens of the two cannot be set side by side, and what
    `native_backend` raises.
    """
    model = open_model(src)
    if window < 2:
        raise UsageError(f"a window of {window} tokens predicts nothing: --window must be at least 2")
    read, other, shown = read_text(text), open_model(reference) if reference else None, progress or Silent()
    tokens = windows(read, (other or model).source.tokenizer(), window, count)
    with arithmetic(compute):
        if other and not same_tokens(model, other, read, tokens):
            return measure_across(model, other, read, tokens, shown, native)
        if native:
            return measure_natively(model, native, tokens, shown, other.stream() if other else None)
        return measure(model.stream(), tokens, shown, other.stream() if other else None)
