"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from secateur_runtime.errors import UsageError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}
Model = Annotated[
    str, typer.Argument(help="Model folder, .gguf file, hub id (org/name) or smollm2-135m.", metavar="MODEL")
]
Out = Annotated[
    Path,
    typer.Option("--output", "-o", help="Folder to write; appears only when it is finished and checked."),
]
_METHODS = (
    "A method for single weights: {weight_methods}; or another kind of pruning: {other_kinds} (without"
    " --target: the best method for weights, by measurement)."
)
Method = Annotated[str, typer.Option("--method", help=_METHODS)]
Sparsity = Annotated[Optional[str], typer.Option("--sparsity", help="Share of zeros: 0.5 or 50%.")]
Pattern = Annotated[
    Optional[str], typer.Option("--pattern", help="N:M pattern: 2:4 keeps two of every four.")
]
Units = Annotated[
    str | None,
    typer.Option(
        "--units",
        help=(
            "width: what is narrowed, of ffn (default), kv, head, hidden, by commas; auto: ffn (default), kv."
        ),
    ),
]
Ratio = Annotated[
    float | None,
    typer.Option(
        "--ratio",
        help=(
            "Share that goes; width: of those units' parameters; depth: of all blocks; vocab: of all tokens."
        ),
    ),
]
_BUDGETS = (
    "params=110M, params=80%, size=200MB, ram=300MB@ctx2048 (weights and KV cache), ratio=0.2 (of all block"
    " parameters)"
)
Target = Annotated[
    Optional[list[str]],
    typer.Option(
        "--target", help=f"Not of weights: budgets, instead of --ratio: {_BUDGETS}. Repeatable: all hold."
    ),
]
DropLayers = Annotated[
    Optional[int], typer.Option("--drop-layers", min=1, help="depth: so many blocks' worth of parameters go.")
]
SubBlocks = Annotated[
    bool, typer.Option("--sub-blocks", help="depth: attention and FFN may go on their own.")
]
Align = Annotated[
    int,
    typer.Option(
        "--align",
        min=1,
        help="width, vocab, auto: FFNs, hidden channels and tokens stay multiples of it: 32, 64, 256.",
    ),
]
Uniform = Annotated[
    bool,
    typer.Option(
        "--uniform", help="width, auto: insist on one width for all blocks, which loads everywhere."
    ),
]
Layers = Annotated[
    Optional[str],
    typer.Option("--layers", help="width, depth, auto: only these blocks, such as 4-25 or 0-3,8."),
]
KeepHeads = Annotated[
    int, typer.Option("--keep-heads", min=1, help="width: heads that stay in every block, at least.")
]
_CRITERION = (
    "Replace the method's criterion: {criteria}; for width: obs (default), {unit_criteria}, or one of"
    " weights; for depth: {depth_criteria} (default influence)."
)
Criterion = Annotated[str | None, typer.Option("--criterion", help=_CRITERION)]
Repair = Annotated[
    str | None,
    typer.Option(
        "--repair",
        help=(
            "Another repair: {repairs}; for width: {unit_repairs} (default lsq); for depth: seam (default),"
            " none."
        ),
    ),
]
_WAYS = (
    "learned (states and heads, by least entropy of importance), heads (values of heads), pca (states,"
    " principal axes; for --units hidden)"
)
Rotate = Annotated[
    str,
    typer.Option(
        "--rotate",
        help=(
            f"Rotate the model first, its predictions unchanged: {_WAYS}. A tied head becomes its own tensor."
        ),
    ),
]
Scope = Annotated[Optional[str], typer.Option("--scope", help="Which weights compete: row or tensor.")]
Allocation = Annotated[
    Optional[str],
    typer.Option(
        "--allocation",
        help="Spread over layers: {allocations}; for width: {spreads}; the default is uniform.",
    ),
]
Calib = Annotated[
    str,
    typer.Option(
        "--calib", help="Text file (.txt, .raw, .jsonl), hf:DATASET:CONFIG:SPLIT, builtin, or self."
    ),
]
Samples = Annotated[int, typer.Option("--samples", min=1, help="Windows of calibration text.")]
CalibWindow = Annotated[int, typer.Option("--calib-window", min=2, help="Tokens per calibration window.")]
Protect = Annotated[
    list[str] | None,
    typer.Option(
        "--protect",
        help="first=N, last=N, or a glob over tensors (width: or groups; depth: or halves); repeatable.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
Dtype = Annotated[str, typer.Option("--dtype", help="Storage: auto, float32, bfloat16, float16.")]
Compute = Annotated[
    str, typer.Option("--compute", help="Matrix products in float32 or bfloat16 (summed in float32).")
]
RunCompute = Annotated[
    str | None,
    typer.Option("--compute", help="Matrix products: bfloat16, or float32 (default where units are cut)."),
]
Memory = Annotated[
    int,
    typer.Option(
        "--memory", min=0, help="MiB of hidden states held in memory before a scratch file is used."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Decide, print, and write nothing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


def memory(option: str, text: str) -> int:
    """Return the bytes that `8G`, `8GB`, `8GiB` or `900M` mean.

    Raises UsageError that names the option for anything else.
    """
    digits = text.strip().upper().removesuffix("B")
    unit = digits.lstrip("0123456789.")
    try:
        amount = float(digits[: len(digits) - len(unit)])
        return int(amount * _UNITS[unit.strip()])
    except (ValueError, KeyError):
        raise UsageError(f"{option} {text!r} is no amount of memory: write 8G or 900M") from None


def needs(option: str, given: object, **others: object) -> None:
    """Raise UsageError for options that are given and do nothing without `option`."""
    useless = ["--" + name.replace("_", "-") for name, value in others.items() if value is not None]
    if useless and not given:
        raise UsageError(f"{' and '.join(useless)} would do nothing here: add {option}")


def separated(names: str | None) -> list[str]:
    """Return the names in a comma-separated list."""
    return [name.strip() for name in (names or "").split(",") if name.strip()]
