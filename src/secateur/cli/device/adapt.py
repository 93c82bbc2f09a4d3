"""`secateur adapt`: what a model gives up while it serves, in which order, and who decides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli.device import adapt_price, adapt_simulate, adapt_train
from secateur.cli.shared import options, printing
from secateur_runtime.errors import OutputError
from secateur_runtime.files import refuse_existing

if TYPE_CHECKING:
    from secateur.adapt.ranking.greedy_search import Cost
    from secateur_runtime.ladder import Ladder

app = typer.Typer(
    help=(
        "Let a model give memory back while it serves: rank its parts, train a policy, replay what a device"
        " went through."
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("price")(adapt_price.price)
app.command("train")(adapt_train.train)
app.command("simulate")(adapt_simulate.simulate)


@app.command("rank")
def rank(
    model: options.Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="Ladder to write, a JSON file.")] = Path(
        "ladder.json"
    ),
    calib: options.Calib = "builtin",
    samples: Annotated[
        int,
        typer.Option(
            "--samples", min=1, help="Windows of text by which neurons and key-value groups are ordered."
        ),
    ] = 16,
    calib_window: options.CalibWindow = 512,
    probe: Annotated[
        int,
        typer.Option("--probe", min=1, help="Windows, of those, whose beginnings losses are measured on."),
    ] = 8,
    criterion: Annotated[
        str, typer.Option("--criterion", help="Orders neurons and key-value groups: as for width.")
    ] = "contribution",
    widths: Annotated[
        int, typer.Option("--widths", min=1, help="Steps in which an FFN goes; 1 for whole halves only.")
    ] = 2,
    groups: Annotated[
        bool, typer.Option("--groups/--no-groups", help="Key-value groups go one by one, or with their half.")
    ] = False,
    context: Annotated[
        int,
        typer.Option(
            "--context", min=0, help="Tokens in all caches together when parts are weighed by bytes."
        ),
    ] = 4096,
    floor: Annotated[
        float,
        typer.Option(
            "--floor", help="Share of the bytes (weights and those caches) at which the ladder ends."
        ),
    ] = 0.4,
    protect: options.Protect = None,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure what the model misses least, again after every step, and write the ladder of its levels.

    killed, the same command goes on.
    """
    from secateur.adapt.ranking.rank import Rank
    from secateur.adapt.ranking.rank import rank as run
    from secateur.calibrate.calibration import Calibration
    from secateur.model.handle import open_model

    refuse_existing(output, overwrite=overwrite)
    if not output.parent.is_dir():
        raise OutputError(f"cannot write {output}: {output.parent} is no folder")
    calibration = Calibration(text=calib, samples=samples, window=calib_window)
    how = Rank(
        calibration=calibration,
        probe=probe,
        criterion=criterion,
        widths=widths,
        groups=groups,
        context=context,
        floor=floor,
        protect=tuple(protect or ()),
    )
    with printing.progress(quiet=quiet or as_json) as progress:
        ladder, cost = run(
            open_model(model), how, out=output, overwrite=overwrite, seed=seed, progress=progress
        )
    printing.result(_summary(ladder, cost), as_json=as_json, title=f"wrote {output}")


def _summary(ladder: Ladder, cost: Cost) -> dict[str, Any]:
    last = ladder.at(len(ladder) - 1)
    return {
        "model": ladder.model,
        "levels": len(ladder),
        "loss": ladder.whole.loss,
        "last_loss": last.loss,
        "weight_bytes": ladder.whole.weight_bytes,
        "last_weight_bytes": last.weight_bytes,
        "kv_values": ladder.whole.kv_values,
        "last_kv_values": last.kv_values,
        "units_measured": cost.measured,
        "passes_through_halves": cost.halves,
        "naive_passes_through_halves": cost.naive,
    } | dict(ladder.made_by)
