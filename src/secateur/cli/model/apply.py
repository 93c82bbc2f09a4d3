"""`secateur apply`: do what a plan says."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli.model.plan import summary
from secateur.cli.shared import options, printing
from secateur_runtime.errors import PlanError, UsageError, nearest

if TYPE_CHECKING:
    from secateur.model.written.write_settings import Settings
    from secateur.pipeline.prune.apply import Pruned


def apply(
    model: options.Model,
    output: options.Out,
    plan: Annotated[Path, typer.Option("--plan", help="JSON file that `secateur plan` wrote.")] = Path(
        "plan.json"
    ),
    dtype: options.Dtype = "auto",
    compute: options.RunCompute = None,
    memory: options.Memory = 1024,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Apply a plan to the model it was made for and write a checked Hugging Face folder."""
    from secateur.core.plan import Plan
    from secateur.pipeline.prune.apply import apply

    settings = settings_of(dtype, compute, memory, overwrite=overwrite)
    made = Plan.from_json(_read(plan))
    started = time.perf_counter()
    with printing.progress(quiet=quiet or as_json) as progress:
        pruned = apply(made, model, output, settings=settings, progress=progress)
    body = summary(made, model) | changes(pruned) | {"seconds": round(time.perf_counter() - started, 1)}
    printing.result(body, as_json=as_json, title=f"wrote {output}")


def settings_of(dtype: str, compute: str | None, memory: int, *, overwrite: bool) -> Settings:
    """Return the settings of a run; raises UsageError for an unknown arithmetic."""
    from secateur.model.written.write_settings import Settings

    return Settings(
        dtype=dtype,
        arithmetic=arithmetic_of(compute) if compute else None,
        memory=memory << 20,
        overwrite=overwrite,
    )


def arithmetic_of(compute: str) -> Any:
    """Return `compute` if it is an arithmetic; raises UsageError otherwise."""
    known = ("float32", "bfloat16")
    if compute not in known:
        raise UsageError(f"unknown --compute {compute!r}{nearest(compute, known)}; known: {', '.join(known)}")
    return compute


def changes(pruned: Pruned) -> dict[str, Any]:
    """Return what a run changed, for people."""
    return {
        "output": str(pruned.out),
        "parameters": pruned.parameters,
        "sparsity": round(pruned.sparsity, 5),
        "bytes": pruned.bytes,
        "resumed_blocks": pruned.resumed_blocks,
        "reload_difference": pruned.reload_difference,
    }


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise PlanError(f"cannot read plan {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise PlanError(f"plan {path} is not UTF-8 text") from None
