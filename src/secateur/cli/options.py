"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

Model = Annotated[str, typer.Argument(help="Model folder, .gguf file, hub id (org/name) or smollm2-135m.", metavar="MODEL")]
Out = Annotated[Path, typer.Option("--output", "-o", help="Folder to write; appears only when it is finished and checked.")]
Method = Annotated[str, typer.Option("--method", help="magnitude, wanda, sparsegpt, ria, alps, random, or auto (the best by measurement).")]
Sparsity = Annotated[Optional[str], typer.Option("--sparsity", help="Share of zeros: 0.5 or 50%.")]  # noqa: UP045
Pattern = Annotated[Optional[str], typer.Option("--pattern", help="N:M pattern: 2:4 keeps two of every four.")]  # noqa: UP045
Criterion = Annotated[Optional[str], typer.Option("--criterion", help="Replace the method's criterion.")]  # noqa: UP045
Repair = Annotated[Optional[str], typer.Option("--repair", help="Replace the method's repair: none, obs, dsnot, lsq, admm.")]  # noqa: UP045
Scope = Annotated[Optional[str], typer.Option("--scope", help="Which weights compete: row or tensor.")]  # noqa: UP045
Allocation = Annotated[Optional[str], typer.Option("--allocation", help="Spread of the ratio: uniform, owl, error, global.")]  # noqa: UP045
Calib = Annotated[str, typer.Option("--calib", help="Text file (.txt, .raw, .jsonl), hf:DATASET:CONFIG:SPLIT, builtin, or self.")]
Samples = Annotated[int, typer.Option("--samples", min=1, help="Windows of calibration text.")]
CalibWindow = Annotated[int, typer.Option("--calib-window", min=2, help="Tokens per calibration window.")]
Protect = Annotated[Optional[list[str]], typer.Option("--protect", help="first=N, last=N or a tensor glob; repeatable.")]  # noqa: UP045
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
Dtype = Annotated[str, typer.Option("--dtype", help="Storage: auto, float32, bfloat16, float16.")]
Compute = Annotated[str, typer.Option("--compute", help="Matrix products in float32 or bfloat16 (summed in float32).")]
Memory = Annotated[int, typer.Option("--memory", min=0, help="MiB of hidden states held in memory before a scratch file is used.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Decide, print, and write nothing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
