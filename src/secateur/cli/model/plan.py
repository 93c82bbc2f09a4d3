"""`secateur plan`: decide and write the decision down."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli.shared import options
from secateur.cli.shared.option_groups import DisplayOptions, with_options
from secateur.cli.shared.prune_options import PruneOptions
from secateur_runtime.files import refuse_existing, write_text

if TYPE_CHECKING:
    from secateur.core.graph import Graph
    from secateur.core.plan import Plan


@with_options
def plan(
    *,
    model: options.Model,
    choice: PruneOptions,
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON file to write.")] = Path("plan.json"),
    explain: Annotated[
        bool, typer.Option("--explain", help="Print what the plan does to every tensor.")
    ] = False,
    overwrite: options.Overwrite = False,
    display: DisplayOptions,
) -> None:
    """Decide what to prune and write plan.json; `secateur apply` does it."""
    refuse_existing(output, overwrite=overwrite)
    with display.progress() as progress:
        made = choice.plan(model, progress)
    write_text(output, made.to_json())
    if explain and not display.as_json:
        print(made.explain(_graph(model), _stored(made, model)))
    display.result(summary(made, model), title=f"wrote {output}")


def summary(plan: Plan, model: str) -> dict[str, Any]:
    """Return what a plan for `model` decided, as printed."""
    said: dict[str, Any] = {
        "model": plan.model,
        "plan": plan.digest(),
        "pruned_tensors": len(plan.sparsity),
        "narrowed": len(plan.keep),
    }
    said["dropped"] = " ".join(plan.drop)
    if plan.keep or plan.drop:
        said["loads"] = (
            "in stock transformers"
            if _is_stock(model, plan)
            else "through the code beside it: no stock class has these widths"
        )
    tried = plan.made_by.get("tried", "")
    return said | dict(plan.made_by) | ({"tried": tried.split("; ")} if tried else {})


def _is_stock(model: str, plan: Plan) -> bool:
    from secateur.model.handle import open_model
    from secateur.model.written.pruned_config import is_stock

    return is_stock(open_model(model), plan)


def _graph(model: str) -> Graph:
    from secateur.model.handle import open_model

    return open_model(model).graph


def _stored(plan: Plan, model: str) -> Graph:
    from secateur.model.handle import open_model
    from secateur.pipeline.prune.rotation import shaped
    from secateur.pipeline.prune.width.repair_units import repaired

    return repaired(shaped(open_model(model), plan.made_by.get("rotate", "")), plan).graph
