"""`secateur prune`: decide, do and prove in one go."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Optional

import typer

from secateur.cli.model.apply import changes
from secateur.cli.model.export import changes as stored
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
        typer.Option("--export", help="Store no zeros: sparse (or sparse-bf16), sparse-int8, sparse-int4."),
    ] = None,
    dry_run: options.DryRun = False,
    overwrite: options.Overwrite = False,
    display: DisplayOptions,
) -> None:
    """Prune a model and write a Hugging Face folder that was reloaded and compared."""
    from secateur.pipeline.export.pruned_sparse import apply_sparse
    from secateur.pipeline.export.sparse_folder import sparse_type
    from secateur.pipeline.prune.apply import apply

    export = sparse_type(export) if export else None
    settings = settings_of(choice.dtype, run.compute, run.memory, overwrite=overwrite)
    started = time.perf_counter()
    with display.progress() as progress:
        plan = choice.plan(model, progress)
        if dry_run:
            display.result(summary(plan, model), title=f"would write {output}")
            return
        if export:
            done = apply_sparse(plan, model, output, kind=export, settings=settings, progress=progress)
        else:
            pruned = apply(plan, model, output, settings=settings, progress=progress)
    found = stored(done) if export else changes(pruned)
    body = summary(plan, model) | found | {"seconds": round(time.perf_counter() - started, 1)}
    display.result(body, title=f"wrote {output}")
