"""`secateur recover`: train a pruned or quantized model towards the dense one it was made from."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli.shared import options, printing
from secateur.cli.shared.option_groups import DisplayOptions, StorageOptions, with_options
from secateur.pipeline.recover.methods import RECOVERIES
from secateur_runtime.errors import UsageError, nearest

if TYPE_CHECKING:
    from secateur.calibrate.calibration import Calibration
    from secateur.pipeline.recover.iterative_pruning import Interleaved
    from secateur.pipeline.recover.methods import RecoverOptions
    from secateur.pipeline.recover.training_run import Recovered

_METHOD = "What is trained. {recoveries:}."
_RATE = "Highest learning rate; local, distill and scales: relative to the size of what learns."
_BATCH = "Tokens in each step; of all processes together."
_LOSS = "Kullback-Leibler divergence: forward (default), reverse or both."
_STATES = "Weight of the distance of the last hidden states."
_CRITERION = (
    "distill with --sparsity: which weights go: wanda (default), or another criterion that needs no more than"
    " the sizes of inputs."
)
_STEPS = "Steps of training; local: for each half of a block."


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """How the model is trained; raises UsageError for options that belong to another method."""

    method: Annotated[str, typer.Option("--method", help=_METHOD)] = "local"
    steps: Annotated[int | None, typer.Option("--steps", min=1, help=_STEPS)] = None
    rate: Annotated[float | None, typer.Option("--rate", help=_RATE)] = None
    batch: Annotated[int | None, typer.Option("--batch", min=1, help=_BATCH)] = None
    micro: Annotated[
        int | None,
        typer.Option(
            "--micro", min=1, help="Not local: windows run at once; the rest of a step is accumulated."
        ),
    ] = None
    loss: Annotated[str | None, typer.Option("--loss", help=f"Not local: {_LOSS}")] = None
    temperature: Annotated[
        float | None, typer.Option("--temperature", help="Not local: of both models' predictions.")
    ] = None
    top: Annotated[
        int | None,
        typer.Option(
            "--top",
            min=1,
            help="Not local: likeliest tokens of the teacher that are kept; all others count as one.",
        ),
    ] = None
    states: Annotated[float | None, typer.Option("--states", min=0.0, help=f"Not local: {_STATES}")] = None
    schedule: Annotated[
        str | None,
        typer.Option("--schedule", help="Not local: cosine (default) or wsd (warm up, stay, decay)."),
    ] = None
    sparsity: Annotated[
        float | None,
        typer.Option(
            "--sparsity", help="distill: prune while training, to this share of zeros; MODEL is dense."
        ),
    ] = None
    criterion: Annotated[str | None, typer.Option("--criterion", help=_CRITERION)] = None
    ratio: Annotated[
        float | None,
        typer.Option(
            "--ratio",
            help="distill: narrow FFNs by this share in stages, training after each; MODEL is dense.",
        ),
    ] = None
    stages: Annotated[
        int | None, typer.Option("--stages", min=2, help="distill with --ratio: how many (5).")
    ] = None
    rank: Annotated[int | None, typer.Option("--rank", min=1, help="lora: rank of the adapters.")] = None
    checkpointing: Annotated[
        bool,
        typer.Option("--checkpointing", help="Not local: compute activations twice instead of keeping them."),
    ] = False

    def __post_init__(self) -> None:
        known = RECOVERIES.summaries()
        if self.method not in known:
            raise UsageError(
                f"unknown --method {self.method!r}{nearest(self.method, known)}; known: {', '.join(known)}"
            )
        from secateur.pipeline.recover.method_options import methods_with

        given = self._given()
        for name in given:
            methods = methods_with(name)
            if self.method not in methods:
                belongs = f"--{name} belongs to --method {' or '.join(methods)}"
                raise UsageError(f"{belongs}, not to {self.method}: leave it out")
        if "stages" in given and "ratio" not in given:
            raise UsageError("--stages needs --ratio: the share of the FFNs that goes in all")
        if "criterion" in given and "sparsity" not in given:
            raise UsageError("--criterion needs --sparsity: the share of zeros that it chooses")

    def _given(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "method"}
        return {name: value for name, value in values.items() if value is not None and value is not False}

    def recovery(self) -> RecoverOptions | Interleaved:
        """Return the recovery that these options ask for."""
        from secateur.pipeline.prune.width.decide import Width
        from secateur.pipeline.recover.distill import Distill
        from secateur.pipeline.recover.iterative_pruning import Interleaved
        from secateur.pipeline.recover.method_options import options_kind

        given = self._given()
        ratio = given.pop("ratio", None)
        stages = given.pop("stages", 5)
        if ratio is not None:
            width = Width(ratio=ratio, allocation="adapt")
            return Interleaved(width=width, distill=Distill(**({"schedule": "wsd"} | given)), stages=stages)
        kind, decided = options_kind(self.method)
        made: RecoverOptions = kind(**decided, **given)
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryText:
    """Text that the model is trained on."""

    calib: options.Calib = "builtin"
    samples: Annotated[
        int | None,
        typer.Option("--samples", min=2, help="Windows of text; 64 for local, 512 for the others."),
    ] = None
    calib_window: options.CalibWindow = 512

    def calibration(self, usual: int) -> Calibration:
        """Return the calibration that these options ask for; `usual` windows where --samples is not given."""
        from secateur.calibrate.calibration import Calibration

        return Calibration(text=self.calib, samples=self.samples or usual, window=self.calib_window)


@with_options
def recover(
    *,
    model: options.Model,
    output: options.Out,
    teacher: Annotated[
        str,
        typer.Option(
            "--teacher",
            help="The dense model that MODEL was pruned from: folder, .gguf file, hub id or smollm2-135m.",
        ),
    ],
    training: TrainingOptions,
    text: RecoveryText,
    seed: options.Seed = 0,
    storage: StorageOptions,
    display: DisplayOptions,
) -> None:
    """Train a pruned or quantized model towards the dense one.

    Zeros stay zero, and quantized values stay on their grid.
    """
    how = training.recovery()
    from secateur.pipeline.recover.recover import recover

    settings = storage.settings()
    first = os.environ.get("RANK", "0") == "0"
    started = time.perf_counter()
    with printing.progress(quiet=display.quiet or display.as_json or not first) as progress:
        made = recover(
            model,
            output,
            how,
            teacher=teacher,
            calibration=text.calibration(how.samples),
            seed=seed,
            settings=settings,
            progress=progress,
        )
    seconds = round(time.perf_counter() - started, 1)
    if first:
        body = {"model": model, "teacher": teacher, **outcome(made), "seconds": seconds}
        display.result(body, title=f"wrote {output}")


def outcome(made: Recovered) -> dict[str, Any]:
    """Return what a recovery gave, as printed."""
    body: dict[str, Any] = {
        "output": str(made.out),
        "method": made.method,
        "kl_before": made.before.kl,
        "kl_after": made.after.kl,
        "nll_before": made.before.nll,
        "nll_after": made.after.nll,
        "changed": made.changed,
        "parameters": made.parameters,
        "bytes": made.bytes,
        "resumed_blocks": made.resumed_blocks,
        "reload_difference": made.reload_difference,
    }
    if made.trained:
        body |= {"steps": made.trained.steps, "best_step": made.trained.best_step}
        body["tokens_per_second"] = (
            round(made.trained.tokens / made.trained.seconds, 1) if made.trained.seconds else 0.0
        )
    return body
