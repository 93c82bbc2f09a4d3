"""Which text a plan is made from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from secateur.calibrate.self_sampled import sample_windows
from secateur.calibrate.text import calibration_digest, read_text, windows
from secateur.core.context import RunContext
from secateur.core.execution import CalibrationText
from secateur.core.process_memory import give_back
from secateur.model.handle import ModelHandle
from secateur_runtime.errors import PlanError, TextError


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Which text is read: `samples` windows of `window` tokens from the start of `text`.

    text: as `secateur.calibrate.text.read_text` takes it, or `self`: sampled from the model.
    """

    text: str = "builtin"
    samples: int = 64
    window: int = 512


def calibration_tokens(model: ModelHandle, calibration: Calibration, seed: int) -> Tensor:
    """Return token ids `[samples, window]`; raises TextError if the text is too short."""
    if calibration.text == "self":
        return sample_windows(model, calibration.samples, calibration.window, seed)
    tokens = windows(
        read_text(calibration.text), model.source.tokenizer(), calibration.window, calibration.samples
    )
    give_back()
    return tokens


def held_out(windows: int, share: float) -> int:
    """Return how many of `windows` windows, the last ones, are held out: `share` of them, at least one.

    Raises TextError if none remains to train on.
    """
    held = max(1, round(share * windows))
    if held >= windows:
        raise TextError(
            f"{windows} window of calibration text is too little: some are learned from, others judge; ask"
            " for more --samples"
        )
    return held


def text_of(calibration: Calibration, tokens: Tensor) -> CalibrationText:
    """Return what a plan says about its text `tokens`, ids `[samples, window]`, enough to read it again."""
    return CalibrationText(
        text=calibration.text,
        samples=calibration.samples,
        window=calibration.window,
        digest=calibration_digest(tokens),
    )


def planned_tokens(
    model: ModelHandle, calibration: Calibration, context: RunContext
) -> tuple[Tensor, CalibrationText]:
    """Return the token ids `[samples, window]` to decide from, and what a plan says about them.

    The run that carries out the plan does not read them again. Raises TextError if the text is too short.
    """
    tokens = calibration_tokens(model, calibration, context.seed)
    text = text_of(calibration, tokens)
    context.results[text] = tokens
    return tokens, text


def replay_calibration(model: ModelHandle, text: CalibrationText, seed: int) -> Tensor:
    """Return the token ids `[samples, window]` of the text of a plan, for its `seed`.

    Raises PlanError if the text is not what it was.
    """
    calibration = Calibration(text=text.text, samples=text.samples, window=text.window)
    tokens = calibration_tokens(model, calibration, seed)
    if calibration_digest(tokens) != text.digest:
        raise PlanError(
            f"calibration text {text.text} is not what the plan was made with: restore it, or make a new plan"
        )
    return tokens
