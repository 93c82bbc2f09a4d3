"""Prune a model and write the result in an export format, in one call that resumes after a kill."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from secateur.core.context import RunContext
from secateur.core.folder_files import PLAN
from secateur.core.plan import Plan
from secateur.model.handle import ModelHandle
from secateur.pipeline.export.formats import Exporter, ExportRequest, ExportResult
from secateur.pipeline.prune.apply import execute
from secateur_runtime.errors import OutputError


def execute_exported(
    model: ModelHandle, plan: Plan, out: Path, context: RunContext, *, exporter: Exporter, kind: str
) -> ExportResult:
    """Prune `model` by `plan` and write the result as `out` in the format of `exporter`.

    kind: a type of that format, or `auto`. The pruned model lies next to `out`, as `OUT.unpacked`, until
    `out` is finished, so a killed run continues in the stage where it stopped.
    Raises OutputError if `out` exists, UsageError if it has not the suffix of the format, and what
    `secateur.pipeline.prune.apply.execute` and the format do.
    """
    settings = context.settings
    exporter.check_output(out)
    if out.exists() and not settings.overwrite:
        raise OutputError(f"{out} exists: choose another --output, or pass --overwrite")
    pruned = out.with_name(out.name + ".unpacked")
    if not (pruned / PLAN).is_file() or (pruned / PLAN).read_text(encoding="utf-8") != plan.to_json():
        execute(model, plan, pruned, replace(context, settings=replace(settings, overwrite=True)))
    made = exporter.write(
        ExportRequest(
            src=str(pruned), out=out, type=kind, overwrite=settings.overwrite, progress=context.progress
        )
    )
    shutil.rmtree(pruned)
    return made
