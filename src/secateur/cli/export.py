"""`secateur export`: a file for another runtime, loaded there and compared before it appears."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from secateur.cli import options, show
from secateur.core.errors import UsageError, nearest

FORMATS = ("gguf",)
_TYPES = "f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, or a K-quant such as q4_k_m; auto: the codes of a quantised model as they are, f16 for another."


def export(
    model: options.Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write; appears only when llama.cpp computes from it what the model computes.")],
    kind: Annotated[str, typer.Option("--type", help=_TYPES)] = "auto",
    form: Annotated[str, typer.Option("--format", help="gguf, for llama.cpp.")] = "gguf",
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Load the file in llama.cpp and compare what it predicts.")] = True,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a model as a GGUF file that was loaded in llama.cpp and compared."""
    if form not in FORMATS:
        raise UsageError(f"unknown --format {form!r}{nearest(form, FORMATS)}; known: {', '.join(FORMATS)}")
    from secateur.pipeline.export import export as run

    started = time.perf_counter()
    with show.progress(quiet=quiet or as_json) as progress:
        done = run(model, output, kind=kind.lower(), verify=verify, overwrite=overwrite, progress=progress)
    for note in done.notes:
        print(f"note: {note}", file=sys.stderr)
    if done.kl is None:
        print(f"warning: {output} was NOT verified: nothing shows that llama.cpp computes what the model computes", file=sys.stderr)
    body: dict[str, Any] = {"output": str(output), "architecture": done.arch, "type": done.type, "bytes": done.bytes, "blocks": done.blocks}
    body |= {"context": done.context, "verified": done.kl is not None, "kl": done.kl, "seconds": round(time.perf_counter() - started, 1)}
    show.result(body, as_json=as_json, title=f"wrote {output}")
