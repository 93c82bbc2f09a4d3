"""`secateur prune`: decide, do and prove in one go."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Optional

import typer

from secateur.cli.model.apply import changes
from secateur.cli.model.export import written
from secateur.cli.model.plan import summary
from secateur.cli.shared import options
from secateur.cli.shared.option_groups import DisplayOptions, settings_of, with_options
from secateur.cli.shared.prune_options import PruneOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeOptions:
    """How a plan is carried out."""

    compute: options.RunCompute = None
    memory: options.Memory = 1024


@with_options
def prune(
    *,
    model: options.Model,
    output: options.Out,
    choice: PruneOptions,
    run: ComputeOptions,
    export: Annotated[
        Optional[str],
        typer.Option("--export", help="Write a format or a type of `secateur export`: {export_types:}."),
    ] = None,
    dry_run: options.DryRun = False,
    overwrite: options.Overwrite = False,
    display: DisplayOptions,
) -> None:
    """Prune a model and write a Hugging Face folder that was reloaded and compared."""
    from secateur.pipeline.export.formats import exporter_named
    from secateur.pipeline.export.pruned_export import apply_exported
    from secateur.pipeline.prune.apply import apply

    exporter, kind = exporter_named(export) if export else (None, "")
    settings = settings_of(choice.dtype, run.compute, run.memory, overwrite=overwrite)
    started = time.perf_counter()
    with display.progress() as progress:
        plan = choice.plan(model, progress)
        if dry_run:
            display.result(summary(plan, model), title=f"would write {output}")
            return
        if exporter:
            found = written(
                apply_exported(
                    plan, model, output, exporter=exporter, kind=kind, settings=settings, progress=progress
                )
            )
        else:
            found = changes(apply(plan, model, output, settings=settings, progress=progress))
    body = summary(plan, model) | found | {"seconds": round(time.perf_counter() - started, 1)}
    display.result(body, title=f"wrote {output}")
