"""`secateur recover`: train a pruned model towards the dense one it was made from."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli import options, show
from secateur.cli.apply import settings_of
from secateur.core.errors import UsageError, nearest

if TYPE_CHECKING:
    from secateur.pipeline import Recovered

METHODS = ("local",)


def recover(
    model: options.Model,
    output: options.Out,
    teacher: Annotated[str, typer.Option("--teacher", help="The dense model that MODEL was pruned from: folder, .gguf file, hub id or smollm2-135m.")],
    method: Annotated[str, typer.Option("--method", help="local: one half of a block at a time towards what the dense half gives.")] = "local",
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps of training; local: for each half of a block.")] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Highest learning rate; local: relative to the size of the weights.")] = None,
    calib: options.Calib = "builtin",
    samples: options.Samples = 128,
    calib_window: options.CalibWindow = 512,
    seed: options.Seed = 0,
    dtype: options.Dtype = "auto",
    compute: options.RunCompute = None,
    memory: options.Memory = 1024,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train what pruning left until it does more of what the dense model does; zeros stay zero."""
    if method not in METHODS:
        raise UsageError(f"unknown --method {method!r}{nearest(method, METHODS)}; known: {', '.join(METHODS)}")
    from secateur import pipeline

    given: dict[str, Any] = {name: value for name, value in (("steps", steps), ("rate", rate)) if value is not None}
    how = pipeline.Local(**given)
    calibration, settings = pipeline.Calibration(text=calib, samples=samples, window=calib_window), settings_of(dtype, compute, memory, overwrite=overwrite)
    started = time.perf_counter()
    with show.progress(quiet=quiet or as_json) as progress:
        made = pipeline.recover(model, output, how, teacher=teacher, calibration=calibration, seed=seed, settings=settings, progress=progress)
    body = {"model": model, "teacher": teacher, **outcome(made), "seconds": round(time.perf_counter() - started, 1)}
    show.result(body, as_json=as_json, title=f"wrote {output}")


def outcome(made: Recovered) -> dict[str, Any]:
    """Return what a recovery gave, for people."""
    return {
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
