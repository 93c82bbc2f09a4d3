"""`secateur card`: a model card that says what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from secateur.cli.shared import options, printing

_RECORDS = "A file that `secateur eval --json` or `bench --json` printed; repeatable."


def card(
    folder: Annotated[
        str, typer.Argument(help="Model folder, such as `secateur prune` writes.", metavar="MODEL")
    ],
    compared: Annotated[
        Optional[Path],
        typer.Option("--compare", help="Folder of a comparison with a row of these very weights."),
    ] = None,
    records: Annotated[Optional[list[Path]], typer.Option("--records", help=_RECORDS)] = None,
    output: Annotated[
        Optional[Path], typer.Option("--output", "-o", help="Another file than MODEL/README.md.")
    ] = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Write results into a Hugging Face model card, as text and as model-index metadata.

    The rest of the card is not changed.
    """
    from secateur.pipeline.compare.model_card import card as run

    made = run(folder, compared=compared, files=records or (), out=output, overwrite=overwrite)
    if as_json:
        body = {
            "card": str(made.path),
            "indexed": made.indexed,
            "records": [record.as_dict() for record in made.records],
        }
        print(json.dumps(body, indent=2, sort_keys=True))
        return
    rows = [[record.name, f"{record.value:.6g}", record.unit] for record in made.records]
    printing.table(
        rows, header=["figure", "value", "unit"], title=f"{made.path}: {made.indexed} figures in model-index"
    )
