"""What each stage of a recipe does, and which figures it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from secateur.calibrate.calibration import Calibration
from secateur.core.context import Settings
from secateur.core.progress import Progress
from secateur.pipeline.evaluate.evaluate import evaluate
from secateur.pipeline.export.formats import ExportRequest
from secateur.pipeline.prune.kinds import Goal
from secateur.pipeline.prune.prune import prune
from secateur.pipeline.quantize.quantize import Quantization, quantize
from secateur.pipeline.recipe.schema import Eval, Export, Gate, Stage
from secateur.pipeline.recover.methods import RecoverOptions
from secateur.pipeline.recover.recover import recover
from secateur_runtime.errors import UncheckedError, VerificationError

# A folder in the way is of this very stage, or there would be a record of it.
_SETTINGS = Settings(overwrite=True)


@dataclass(frozen=True, slots=True)
class Place:
    """The input of a stage and the path it may write.

    model: the model it changes or measures. dense: the model of the recipe; teacher: the same in the
    vocabulary of `model`. figures: what earlier stages measured. file: the last export, if any.
    """

    model: str
    dense: str
    teacher: str
    target: Path
    seed: int
    figures: Mapping[str, Any]
    file: Path | None


@dataclass(frozen=True, slots=True)
class Made:
    """A folder or a file, if the stage makes one, and figures by name."""

    artefact: Path | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)


def perform(stage: Stage, place: Place, progress: Progress) -> Made:
    """Do one stage; a folder that a killed run began to write is continued."""
    if stage.kind == "recover":
        return _recovered(cast("RecoverOptions", stage.options), stage.calibration, place, progress)
    match stage.options:
        case Quantization():
            return _quantized(stage.options, stage.calibration, place, progress)
        case Export() as how:
            return _exported(how, place, progress)
        case Eval() as how:
            return _evaluated(how, place, progress)
        case Gate() as gate:
            return _checked(gate, place)
        case goal:
            return _pruned(goal, stage.calibration, place, progress)


def _pruned(goal: Goal, text: Calibration, place: Place, progress: Progress) -> Made:
    made = prune(
        place.model,
        place.target,
        goal,
        calibration=text,
        seed=place.seed,
        settings=_SETTINGS,
        progress=progress,
    )
    return Made(place.target, {"parameters": made.parameters, "bytes": made.bytes, "sparsity": made.sparsity})


def _recovered(how: RecoverOptions, text: Calibration, place: Place, progress: Progress) -> Made:
    made = recover(
        place.model,
        place.target,
        how,
        teacher=place.teacher,
        calibration=text,
        seed=place.seed,
        settings=_SETTINGS,
        progress=progress,
    )
    gained = {"kl_before": made.before.kl, "kl_after": made.after.kl, "halves_changed": made.changed}
    return Made(place.target, {"parameters": made.parameters, "bytes": made.bytes, **gained})


def _quantized(how: Quantization, text: Calibration, place: Place, progress: Progress) -> Made:
    made = quantize(
        place.model,
        place.target,
        how,
        calibration=text,
        seed=place.seed,
        settings=_SETTINGS,
        progress=progress,
    )
    figures = {"bits_per_weight": made.bits_per_weight, "grids": dict(made.grids)}
    return Made(place.target, {"parameters": made.parameters, "bytes": made.bytes, **figures})


def _exported(how: Export, place: Place, progress: Progress) -> Made:
    exporter = how.exporter
    target = place.target.with_suffix(exporter.suffix)
    done = exporter.write(
        ExportRequest(src=place.model, out=target, type=how.type, overwrite=True, progress=progress)
    )
    return Made(done.out, {"bytes": done.bytes, "type": done.type, **done.figures})


def _evaluated(how: Eval, place: Place, progress: Progress) -> Made:
    options: Any = {
        "text": how.text,
        "window": how.window,
        "count": how.count,
        "compute": how.compute,
        "progress": progress,
    }
    found = evaluate(place.model, reference=place.dense, **options)
    measured_with = _protocol(how) + (", by tokens of the dense model" if found.per_token_of else "")
    known = (
        place.figures.get("dense_perplexity") if place.figures.get("measured_with") == measured_with else None
    )
    dense = found.reference_perplexity or known or evaluate(place.dense, **options).perplexity
    ratio = {
        "dense_perplexity": dense,
        "perplexity_ratio": found.perplexity / dense,
        "measured_with": measured_with,
    }
    across = {"per_token_of": found.per_token_of, "bits_per_byte": found.bits_per_byte}
    # Figures that this model has not are noted as such, so that no gate takes those of a model before it.
    return Made(
        None,
        {"perplexity": found.perplexity, "kl": found.kl, "agreement": found.agreement, **ratio, **across},
    )


def _protocol(how: Eval) -> str:
    return f"{how.text}, {how.count} x {how.window}, {how.compute}"


def _checked(gate: Gate, place: Place) -> Made:
    limits: dict[str, float | None] = {
        "perplexity": gate.perplexity,
        "perplexity_ratio": gate.perplexity_ratio,
        "kl": gate.kl,
        "bytes": gate.bytes,
    }
    found: dict[str, float] = {}
    for name, most in limits.items():
        if most is None:
            continue
        value = place.figures.get(name)
        if value is None and name == "kl" and (dense := place.figures.get("per_token_of")):
            raise UncheckedError(
                f"the gate asks for kl, and {place.model} reads other tokens than {dense}: ask for"
                " perplexity_ratio, which is per token of it"
            )
        if value is None:
            raise UncheckedError(
                f"the gate asks for {name}, and no stage before it gave any: put a stage that does before it"
            )
        if not value <= most:
            raise VerificationError(
                f"the gate does not hold: {name} is {value:.6g}, and at most {most:.6g} is allowed; what was"
                " made is kept for --resume"
            )
        found[f"allowed_{name}"] = most
    return Made(None, found)
