"""`secateur report`: a page, a table and charts of a comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from secateur.cli.shared import options, printing


def report(
    folder: Annotated[Path, typer.Argument(help="Folder that `secateur compare` wrote.", metavar="DIR")],
    output: Annotated[
        Optional[Path], typer.Option("--output", "-o", help="Folder for the report; DIR itself if not given.")
    ] = None,
    formats: Annotated[
        str, typer.Option("--formats", help="Of html, md, csv and png, comma-separated.")
    ] = "html,md,csv,png",
    as_json: options.Json = False,
) -> None:
    """Write one HTML page that needs no network, and the same as Markdown, CSV and PNG.

    Existing files are replaced.
    """
    from secateur.present.report import report as run

    made = run(folder, output, [name.strip() for name in formats.split(",")])
    body = {
        "files": [str(path) for path in made.files],
        "rows": len(made.lines),
        "failed": [line.row.name for line in made.lines if line.failed],
    }
    if as_json:
        print(json.dumps(body, indent=2))
        return
    printing.table(
        [[str(path), printing.size(path.stat().st_size)] for path in made.files],
        title=f"{len(made.lines)} rows",
    )
