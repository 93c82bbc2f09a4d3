"""Prune a model and write the result without its zeros, in one call that resumes after a kill."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from secateur.core.context import RunContext
from secateur.core.folder_files import PLAN
from secateur.core.plan import Plan
from secateur.model.handle import ModelHandle
from secateur.pipeline.export.sparse_folder import SparseExport, export_sparse
from secateur.pipeline.prune.apply import execute
from secateur_runtime.errors import OutputError


def execute_sparse(
    model: ModelHandle, plan: Plan, out: Path, context: RunContext, *, kind: str
) -> SparseExport:
    """Prune `model` by `plan` and write the result without its zeros as the folder `out`.

    kind: a type of `export_sparse`. The pruned model lies next to `out`, as `OUT.unpacked`, until `out` is
    finished, so a killed run continues in the stage where it stopped.
    Raises OutputError if `out` exists, and what `secateur.pipeline.prune.apply.execute` and `export_sparse`
    do.
    """
    settings = context.settings
    if out.exists() and not settings.overwrite:
        raise OutputError(f"{out} exists: choose another --output, or pass --overwrite")
    pruned = out.with_name(out.name + ".unpacked")
    if not (pruned / PLAN).is_file() or (pruned / PLAN).read_text(encoding="utf-8") != plan.to_json():
        execute(model, plan, pruned, replace(context, settings=replace(settings, overwrite=True)))
    made = export_sparse(str(pruned), out, kind=kind, overwrite=settings.overwrite, progress=context.progress)
    shutil.rmtree(pruned)
    return made
