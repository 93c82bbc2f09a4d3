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
    from secateur.core.context import RunContext
    from secateur.model.handle import open_model
    from secateur.pipeline.export.formats import exporter_named
    from secateur.pipeline.export.pruned_export import execute_exported
    from secateur.pipeline.prune.apply import execute
    from secateur.pipeline.prune.plan import decide

    exporter, kind = exporter_named(export) if export else (None, "")
    if exporter:
        exporter.check_output(output)
    settings = settings_of(choice.dtype, run.compute, run.memory, overwrite=overwrite)
    started = time.perf_counter()
    with display.progress() as progress:
        context = RunContext(seed=choice.seed, progress=progress, settings=settings)
        opened = open_model(model)
        plan = decide(opened, choice.goal(), choice.calibration(), context)
        said = summary(plan, opened)
        if dry_run:
            display.result(said, title=f"would write {output}")
            return
        if exporter:
            found = written(execute_exported(opened, plan, output, context, exporter=exporter, kind=kind))
        else:
            found = changes(execute(opened, plan, output, context))
    seconds = round(time.perf_counter() - started, 1)
    display.result(said | found | {"seconds": seconds}, title=f"wrote {output}")
