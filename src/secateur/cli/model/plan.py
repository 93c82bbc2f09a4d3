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
    from secateur.model.handle import ModelHandle


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
    from secateur.core.context import RunContext
    from secateur.model.handle import open_model
    from secateur.pipeline.prune.plan import decide

    refuse_existing(output, overwrite=overwrite)
    with display.progress() as progress:
        context = RunContext(seed=choice.seed, progress=progress)
        opened = open_model(model)
        made = decide(opened, choice.goal(), choice.calibration(), context)
    write_text(output, made.to_json())
    if explain and not display.as_json:
        print(made.explain(opened.graph, _stored(made, opened)))
    display.result(summary(made, opened), title=f"wrote {output}")


def summary(plan: Plan, model: ModelHandle) -> dict[str, Any]:
    """Return what a plan for `model` decided, as printed."""
    from secateur.model.written.pruned_config import is_stock

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
            if is_stock(model, plan)
            else "through the code beside it: no stock class has these widths"
        )
    tried = plan.made_by.get("tried", "")
    return said | dict(plan.made_by) | ({"tried": tried.split("; ")} if tried else {})


def _stored(plan: Plan, model: ModelHandle) -> Graph:
    from secateur.pipeline.prune.rotation import shaped
    from secateur.pipeline.prune.width.repair_units import with_repair_biases

    return with_repair_biases(shaped(model, plan.execution.rotation), plan).graph
