"""`secateur prune`: decide, do and prove in one go."""

from __future__ import annotations

import time
from typing import Annotated, Optional

import typer

from secateur.cli.model.apply import changes, settings_of
from secateur.cli.model.export import changes as stored
from secateur.cli.model.plan import summary
from secateur.cli.shared import options, printing
from secateur.cli.shared.prune_options import Choice, deciding


@deciding
def prune(
    model: options.Model,
    output: options.Out,
    choice: Choice,
    compute: options.RunCompute = None,
    memory: options.Memory = 1024,
    export: Annotated[
        Optional[str],
        typer.Option("--export", help="Store no zeros: sparse (or sparse-bf16), sparse-int8, sparse-int4."),
    ] = None,
    dry_run: options.DryRun = False,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Prune a model and write a Hugging Face folder that was reloaded and compared."""
    from secateur.pipeline.export.pruned_sparse import apply_sparse
    from secateur.pipeline.export.sparse_folder import sparse_type
    from secateur.pipeline.prune.apply import apply

    export = sparse_type(export) if export else None
    settings = settings_of(choice.dtype, compute, memory, overwrite=overwrite)
    started = time.perf_counter()
    with printing.progress(quiet=quiet or as_json) as progress:
        plan = choice.plan(model, progress)
        if dry_run:
            printing.result(summary(plan, model), as_json=as_json, title=f"would write {output}")
            return
        if export:
            done = apply_sparse(plan, model, output, kind=export, settings=settings, progress=progress)
        else:
            pruned = apply(plan, model, output, settings=settings, progress=progress)
    found = stored(done) if export else changes(pruned)
    body = summary(plan, model) | found | {"seconds": round(time.perf_counter() - started, 1)}
    printing.result(body, as_json=as_json, title=f"wrote {output}")
