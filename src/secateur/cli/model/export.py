"""`secateur export`: a file for another runtime, or a folder without zeros, loaded and compared before it appears."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli.shared import options, printing
from secateur_runtime.errors import UsageError, nearest

if TYPE_CHECKING:
    from secateur.pipeline.export.sparse_folder import SparseExport

FORMATS = ("gguf",)
FOLDERS = ("sparse-", "dense")
_TYPES = (
    "File: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, or a K-quant such as q4_k_m; auto: the codes of a"
    " quantised model as they are, f16 for another. Folder: sparse-bf16, sparse-int8 or sparse-int4 store no"
    " zeros; dense puts them back for stock transformers."
)


def export(
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
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a model as a GGUF file, or as a folder without zeros, that was loaded and compared."""
    if kind.lower().startswith(FOLDERS):
        _folder(model, output, kind.lower(), group, overwrite=overwrite, as_json=as_json, quiet=quiet)
        return
    if group:
        raise UsageError("--group belongs to --type sparse-int8 and sparse-int4: leave it out")
    if form not in FORMATS:
        raise UsageError(f"unknown --format {form!r}{nearest(form, FORMATS)}; known: {', '.join(FORMATS)}")
    from secateur.pipeline.export.gguf import export as run

    started = time.perf_counter()
    with printing.progress(quiet=quiet or as_json) as progress:
        done = run(model, output, kind=kind.lower(), verify=verify, overwrite=overwrite, progress=progress)
    for note in done.notes:
        print(f"note: {note}", file=sys.stderr)
    if done.kl is None:
        print(
            f"warning: {output} was NOT verified: nothing shows that llama.cpp computes what the model"
            " computes",
            file=sys.stderr,
        )
    body: dict[str, Any] = {
        "output": str(output),
        "architecture": done.arch,
        "type": done.type,
        "bytes": done.bytes,
        "blocks": done.blocks,
    }
    body |= {
        "context": done.context,
        "verified": done.kl is not None,
        "kl": done.kl,
        "seconds": round(time.perf_counter() - started, 1),
    }
    printing.result(body, as_json=as_json, title=f"wrote {output}")


def _folder(
    model: str, output: Path, kind: str, group: int, *, overwrite: bool, as_json: bool, quiet: bool
) -> None:
    from secateur.pipeline.export.sparse_folder import export_sparse

    started = time.perf_counter()
    with printing.progress(quiet=quiet or as_json) as progress:
        done = export_sparse(model, output, kind=kind, group=group, overwrite=overwrite, progress=progress)
    printing.result(
        changes(done) | {"seconds": round(time.perf_counter() - started, 1)},
        as_json=as_json,
        title=f"wrote {output}",
    )


def changes(done: SparseExport) -> dict[str, Any]:
    """Return what a folder without zeros holds, for people."""
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
