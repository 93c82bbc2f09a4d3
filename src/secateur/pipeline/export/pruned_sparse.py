"""Prune a model and write the result without its zeros, in one call that resumes after a kill."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from secateur.core.folder_files import PLAN
from secateur.core.plan import Plan
from secateur.core.progress import Progress
from secateur.model.written.write_settings import Settings
from secateur.pipeline.export.sparse_folder import SparseExport, export_sparse
from secateur.pipeline.prune.apply import apply
from secateur_runtime.errors import OutputError


def apply_sparse(
    plan: Plan, src: str, out: str | Path, *, kind: str, settings: Settings, progress: Progress | None = None
) -> SparseExport:
    """Apply `plan` to the model `src` and write the result without its zeros as the folder `out`.

    kind: a type of `export_sparse`. The pruned model lies next to `out`, as `OUT.unpacked`, until `out` is
    finished, so a killed run continues in the stage where it stopped.
    Raises OutputError if `out` exists, and what `secateur.pipeline.prune.apply.apply` and `export_sparse` do.
    """
    out = Path(out)
    if out.exists() and not settings.overwrite:
        raise OutputError(f"{out} exists: choose another --output, or pass --overwrite")
    pruned = out.with_name(out.name + ".unpacked")
    if not (pruned / PLAN).is_file() or (pruned / PLAN).read_text(encoding="utf-8") != plan.to_json():
        apply(plan, src, pruned, settings=replace(settings, overwrite=True), progress=progress)
    made = export_sparse(str(pruned), out, kind=kind, overwrite=settings.overwrite, progress=progress)
    shutil.rmtree(pruned)
    return made
