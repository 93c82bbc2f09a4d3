"""What each stage of a recipe does, and which figures it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from secateur.core.progress import Progress
from secateur.model.written.write_settings import Settings
from secateur.pipeline.evaluate.evaluate import evaluate
from secateur.pipeline.export.gguf import export
from secateur.pipeline.prune.prune import prune
from secateur.pipeline.quantize.quantize import Quantization, quantize
from secateur.pipeline.recipe.schema import Eval, Export, Gate, Stage
from secateur.pipeline.recover.distill import Distill
from secateur.pipeline.recover.local_reconstruction import Local
from secateur.pipeline.recover.recover import recover
from secateur_runtime.errors import UsageError, VerificationError


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stage stands: the model it gets, the dense one, the path it may write, and what stages before it measured.

    teacher: the dense one in the vocabulary of the model. file: what was exported last.
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
    """Do one stage; a folder that a killed run began to write is gone on with."""
    # What is in the way is of this very stage, or there would be a note of it.
    settings = Settings(overwrite=True)
    text = stage.calibration
    match stage.options:
        case (Local() | Distill()) as how:
            recovered = recover(
                place.model,
                place.target,
                how,
                teacher=place.teacher,
                calibration=text,
                seed=place.seed,
                settings=settings,
                progress=progress,
            )
            gained = {
                "kl_before": recovered.before.kl,
                "kl_after": recovered.after.kl,
                "halves_changed": recovered.changed,
            }
            return Made(
                place.target, {"parameters": recovered.parameters, "bytes": recovered.bytes, **gained}
            )
        case Quantization() as how:
            quantized = quantize(
                place.model,
                place.target,
                how,
                calibration=text,
                seed=place.seed,
                settings=settings,
                progress=progress,
            )
            figures = {"bits_per_weight": quantized.bits_per_weight, "grids": dict(quantized.grids)}
            return Made(
                place.target, {"parameters": quantized.parameters, "bytes": quantized.bytes, **figures}
            )
        case Export(type=kind):
            file = export(
                place.model, place.target.with_suffix(".gguf"), kind=kind, overwrite=True, progress=progress
            )
            return Made(file.out, {"bytes": file.bytes, "type": file.type, "kl_in_llama_cpp": file.kl})
        case Eval() as how:
            return _evaluated(how, place, progress)
        case Gate() as gate:
            return _judged(gate, place)
        case goal:
            pruned = prune(
                place.model,
                place.target,
                goal,
                calibration=text,
                seed=place.seed,
                settings=settings,
                progress=progress,
            )
            return Made(
                place.target,
                {"parameters": pruned.parameters, "bytes": pruned.bytes, "sparsity": pruned.sparsity},
            )


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


def _judged(gate: Gate, place: Place) -> Made:
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
            raise UsageError(
                f"the gate asks for kl, and {place.model} reads other tokens than {dense}: ask for"
                " perplexity_ratio, which is per token of it"
            )
        if value is None:
            raise UsageError(
                f"the gate asks for {name}, and no stage before it gave any: put a stage that does before it"
            )
        if not value <= most:
            raise VerificationError(
                f"the gate does not hold: {name} is {value:.6g}, and at most {most:.6g} is allowed; what was"
                " made is kept for --resume"
            )
        found[f"allowed_{name}"] = most
    return Made(None, found)
