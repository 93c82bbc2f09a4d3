"""`secateur adapt`: what a model gives up while it serves, in which order, and who decides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli.device import adapt_price, adapt_simulate, adapt_train
from secateur.cli.device.adapt_options import LadderOut, MeasurementText, ResultOptions
from secateur.cli.shared import options
from secateur.cli.shared.method_lists import Verb
from secateur.cli.shared.option_groups import DisplayOptions, with_options
from secateur_runtime.errors import OutputError
from secateur_runtime.files import refuse_existing

if TYPE_CHECKING:
    from secateur.adapt.ranking.greedy_search import Cost
    from secateur.adapt.ranking.rank import Rank
    from secateur_runtime.ladder import Ladder

app = typer.Typer(
    help=(
        "Let a model give memory back while it serves: rank its parts, train a policy, replay what a device"
        " went through."
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("price", cls=Verb)(adapt_price.price)
app.command("train", cls=Verb)(adapt_train.train)
app.command("simulate", cls=Verb)(adapt_simulate.simulate)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingText(MeasurementText):
    """Text that units are ordered by, and how many of its windows losses are measured on."""

    samples: Annotated[
        int,
        typer.Option(
            "--samples", min=1, help="Windows of text by which neurons and key-value groups are ordered."
        ),
    ] = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingOptions:
    """What the levels of the ladder are made of, and where it ends."""

    criterion: Annotated[
        str, typer.Option("--criterion", help="Orders neurons and key-value groups: as for width.")
    ] = "contribution"
    widths: Annotated[
        int, typer.Option("--widths", min=1, help="Steps in which an FFN goes; 1 for whole halves only.")
    ] = 2
    groups: Annotated[
        bool, typer.Option("--groups/--no-groups", help="Key-value groups go one by one, or with their half.")
    ] = False
    context: Annotated[
        int,
        typer.Option(
            "--context", min=0, help="Tokens in all caches together when parts are weighed by bytes."
        ),
    ] = 4096
    floor: Annotated[
        float,
        typer.Option(
            "--floor", help="Share of the bytes (weights and those caches) at which the ladder ends."
        ),
    ] = 0.4
    protect: options.Protect = None

    def rank(self, text: RankingText) -> Rank:
        """Return the ranking that these options ask for."""
        from secateur.adapt.ranking.rank import Rank

        return Rank(
            calibration=text.calibration(),
            probe=text.probe,
            criterion=self.criterion,
            widths=self.widths,
            groups=self.groups,
            context=self.context,
            floor=self.floor,
            protect=tuple(self.protect or ()),
        )


@app.command("rank", cls=Verb)
@with_options
def rank(
    *,
    model: options.Model,
    output: LadderOut = Path("ladder.json"),
    text: RankingText,
    ranking: RankingOptions,
    result: ResultOptions,
    display: DisplayOptions,
) -> None:
    """Measure what the model misses least, again after every step, and write the ladder of its levels.

    An interrupted run continues when the same command is given again.
    """
    from secateur.adapt.ranking.rank import rank as run
    from secateur.model.handle import open_model

    refuse_existing(output, overwrite=result.overwrite)
    if not output.parent.is_dir():
        raise OutputError(f"cannot write {output}: {output.parent} is no folder")
    with display.progress() as progress:
        ladder, cost = run(
            open_model(model),
            ranking.rank(text),
            out=output,
            overwrite=result.overwrite,
            seed=result.seed,
            progress=progress,
        )
    display.result(_summary(ladder, cost), title=f"wrote {output}")


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
