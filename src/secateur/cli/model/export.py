"""`secateur export`: a checked file for another runtime, or a checked folder without zeros."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli.shared import options
from secateur.cli.shared.option_groups import DisplayOptions, with_options
from secateur_runtime.errors import UsageError

if TYPE_CHECKING:
    from secateur.pipeline.export.formats import ExportResult

_TYPES = "Type of most weights; auto: what the format takes by itself. {export_types:}."
_FORMATS = "What to write; without it the format that has --type. {exporters:}."


@with_options
def export(
    *,
    model: options.Model,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="File or folder to write; appears only when what it holds was loaded and compared.",
        ),
    ],
    kind: Annotated[str, typer.Option("--type", help=_TYPES)] = "auto",
    form: Annotated[str, typer.Option("--format", help=_FORMATS)] = "gguf",
    verify: Annotated[
        bool,
        typer.Option("--verify/--no-verify", help="Load the file in llama.cpp and compare what it predicts."),
    ] = True,
    group: Annotated[
        int,
        typer.Option(
            "--group",
            min=0,
            help="sparse-int8, sparse-int4: inputs that share a scale; 0: 64 for int8, 32 for int4.",
        ),
    ] = 0,
    overwrite: options.Overwrite = False,
    display: DisplayOptions,
) -> None:
    """Write a model for another runtime, or without zeros: a file or folder that was loaded and compared."""
    from secateur.pipeline.export.formats import EXPORTERS, ExportRequest, exporter_for

    kind = kind.lower()
    exporter = exporter_for(form, kind)
    if group and not exporter.grouped:
        grouped = [one for name in EXPORTERS for one in EXPORTERS[name].grouped]
        raise UsageError(f"--group belongs to --type {' and '.join(grouped)}: leave it out")
    started = time.perf_counter()
    with display.progress() as progress:
        done = exporter.write(
            ExportRequest(
                src=model,
                out=output,
                type=kind,
                group=group,
                verify=verify,
                overwrite=overwrite,
                progress=progress,
            )
        )
    for note in done.notes:
        print(f"note: {note}", file=sys.stderr)
    if not done.verified:
        print(
            f"warning: {output} was NOT verified: nothing shows that {exporter.runtime} computes what the"
            " model computes",
            file=sys.stderr,
        )
    body = written(done) | {"seconds": round(time.perf_counter() - started, 1)}
    display.result(body, title=f"wrote {output}")


def written(done: ExportResult) -> dict[str, Any]:
    """Return what an export wrote, as printed."""
    return {"output": str(done.out), **done.facts}
