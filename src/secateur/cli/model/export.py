"""`secateur export`: a checked file for another runtime, or a checked folder without zeros."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli.shared import options
from secateur.cli.shared.option_groups import DisplayOptions, with_options
from secateur_runtime.errors import UsageError, nearest

if TYPE_CHECKING:
    from secateur.pipeline.export.gguf import Exported
    from secateur.pipeline.export.sparse_folder import SparseExport

FORMATS = ("gguf",)
FOLDERS = ("sparse-", "dense")
_TYPES = (
    "File: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, or a K-quant such as q4_k_m; auto: the codes of a"
    " quantized model as they are, f16 for another. Folder: sparse-bf16, sparse-int8 or sparse-int4 store no"
    " zeros; dense puts them back for stock transformers."
)


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
    form: Annotated[str, typer.Option("--format", help="gguf, for llama.cpp.")] = "gguf",
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
    """Write a model as a GGUF file, or as a folder without zeros, that was loaded and compared."""
    if kind.lower().startswith(FOLDERS):
        from secateur.pipeline.export.sparse_folder import export_sparse

        started = time.perf_counter()
        with display.progress() as progress:
            stored = export_sparse(
                model, output, kind=kind.lower(), group=group, overwrite=overwrite, progress=progress
            )
        body = changes(stored)
    else:
        if group:
            raise UsageError("--group belongs to --type sparse-int8 and sparse-int4: leave it out")
        if form not in FORMATS:
            raise UsageError(
                f"unknown --format {form!r}{nearest(form, FORMATS)}; known: {', '.join(FORMATS)}"
            )
        from secateur.pipeline.export.gguf import export as export_file

        started = time.perf_counter()
        with display.progress() as progress:
            done = export_file(
                model, output, kind=kind.lower(), verify=verify, overwrite=overwrite, progress=progress
            )
        _warn(done, output)
        body = file_facts(done, output)
    display.result(body | {"seconds": round(time.perf_counter() - started, 1)}, title=f"wrote {output}")


def _warn(done: Exported, output: Path) -> None:
    for note in done.notes:
        print(f"note: {note}", file=sys.stderr)
    if done.kl is None:
        print(
            f"warning: {output} was NOT verified: nothing shows that llama.cpp computes what the model"
            " computes",
            file=sys.stderr,
        )


def file_facts(done: Exported, output: Path) -> dict[str, Any]:
    """Return what a GGUF file holds, as printed."""
    return {
        "output": str(output),
        "architecture": done.arch,
        "type": done.type,
        "bytes": done.bytes,
        "blocks": done.blocks,
        "context": done.context,
        "verified": done.kl is not None,
        "kl": done.kl,
    }


def changes(done: SparseExport) -> dict[str, Any]:
    """Return what a folder without zeros holds, as printed."""
    body = {"output": str(done.out), "type": done.type, "bytes": done.bytes}
    if done.weights:
        shares = {
            "sparsity": round(done.zeros, 5),
            "share_of_dense": round(done.sparse_bytes / done.dense_bytes, 4),
        }
        body |= {
            "sparse_weights": done.weights,
            **shares,
            "sparse_bytes": done.sparse_bytes,
            "dense_bytes": done.dense_bytes,
        }
    return body | {"resumed_blocks": done.resumed_blocks, "reload_difference": done.reload_difference}
