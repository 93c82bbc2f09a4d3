"""`secateur plan`: decide and write the decision down."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli import options, show
from secateur.core.errors import OutputError, UsageError

if TYPE_CHECKING:
    from secateur.core.plan import Plan


def plan(
    model: options.Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON file to write.")] = Path("plan.json"),
    method: options.Method = "auto",
    sparsity: options.Sparsity = None,
    pattern: options.Pattern = None,
    criterion: options.Criterion = None,
    repair: options.Repair = None,
    scope: options.Scope = None,
    allocation: options.Allocation = None,
    calib: options.Calib = "builtin",
    samples: options.Samples = 64,
    calib_window: options.CalibWindow = 512,
    protect: options.Protect = None,
    seed: options.Seed = 0,
    explain: Annotated[bool, typer.Option("--explain", help="Print what the plan does to every tensor.")] = False,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Decide what to prune and write plan.json; `secateur apply` does it."""
    amount = sparsity_of(sparsity, pattern)
    if output.exists() and not overwrite:
        raise OutputError(f"{output} exists: choose another --output, or pass --overwrite")
    from secateur import pipeline

    with show.progress(quiet=quiet or as_json) as progress:
        made = pipeline.plan(
            model,
            sparsity=amount,
            method=method,
            criterion=criterion,
            repair=repair,
            scope=scope,
            allocation=allocation,
            calibration=pipeline.Calibration(text=calib, samples=samples, window=calib_window),
            protect=protect or (),
            seed=seed,
            progress=progress,
        )
    _write(output, made.to_json())
    if explain and not as_json:
        print(made.explain())
    show.result(summary(made), as_json=as_json, title=f"wrote {output}")


def sparsity_of(sparsity: str | None, pattern: str | None) -> str:
    """Return the one of the two that was given; raises UsageError for both, neither, or each in the other's place."""
    if (sparsity is None) == (pattern is None):
        raise UsageError("say how much to prune: either --sparsity 0.5 or --pattern 2:4")
    if pattern is not None and ":" not in pattern:
        raise UsageError(f"pattern {pattern!r} is not N:M such as 2:4; a ratio goes to --sparsity")
    if sparsity is not None and ":" in sparsity:
        raise UsageError(f"sparsity {sparsity!r} is a pattern: give it to --pattern")
    return sparsity or pattern or ""


def summary(plan: Plan) -> dict[str, Any]:
    """Return what a plan decided, for people."""
    return {"model": plan.model, "plan": plan.digest(), "pruned_tensors": len(plan.sparsity), **plan.made_by}


def _write(path: Path, text: str) -> None:
    scratch = path.with_name(path.name + ".tmp")
    try:
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
