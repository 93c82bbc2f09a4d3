"""`secateur apply`: do what a plan says."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli.model.plan import summary
from secateur.cli.shared import options
from secateur.cli.shared.option_groups import DisplayOptions, StorageOptions, with_options
from secateur_runtime.errors import PlanError

if TYPE_CHECKING:
    from secateur.pipeline.prune.apply import Pruned


@with_options
def apply(
    *,
    model: options.Model,
    output: options.Out,
    plan: Annotated[Path, typer.Option("--plan", help="JSON file that `secateur plan` wrote.")] = Path(
        "plan.json"
    ),
    storage: StorageOptions,
    display: DisplayOptions,
) -> None:
    """Apply a plan to the model it was made for and write a checked Hugging Face folder."""
    from secateur.core.context import RunContext
    from secateur.core.plan import Plan
    from secateur.model.handle import open_model
    from secateur.pipeline.prune.apply import execute

    settings = storage.settings()
    made = Plan.from_json(_read(plan))
    started = time.perf_counter()
    with display.progress() as progress:
        opened = open_model(model)
        pruned = execute(opened, made, output, RunContext(progress=progress, settings=settings))
    body = summary(made, opened) | changes(pruned) | {"seconds": round(time.perf_counter() - started, 1)}
    display.result(body, title=f"wrote {output}")


def changes(pruned: Pruned) -> dict[str, Any]:
    """Return what pruning changed, as printed."""
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
