"""`secateur adapt price`: what each step of a ladder costs on its own."""

from __future__ import annotations

from pathlib import Path

from secateur.cli.device.adapt_options import Ladder, LadderOut, MeasurementText, ResultOptions
from secateur.cli.shared import options, printing
from secateur.cli.shared.option_groups import DisplayOptions, with_options
from secateur_runtime.files import refuse_existing


@with_options
def price(
    *,
    model: options.Model,
    ladder: Ladder,
    output: LadderOut = Path("priced.json"),
    text: MeasurementText,
    result: ResultOptions,
    display: DisplayOptions,
) -> None:
    """Measure the whole model without each step, one at a time.

    Policies that leave the ladder's order need to know.
    """
    from secateur.adapt.ranking.pricing import price as run
    from secateur.model.handle import open_model
    from secateur_runtime.ladder_file import read_ladder
    from secateur_runtime.read_costs import choices_of

    refuse_existing(output, overwrite=result.overwrite)
    with display.progress() as progress:
        priced = run(
            open_model(model),
            read_ladder(ladder),
            text.calibration(),
            probe=text.probe,
            scratch=output.parent,
            seed=result.seed,
            progress=progress,
        )
    priced.save(output, overwrite=result.overwrite)
    prices = choices_of(priced).prices.tolist()
    found = {rung.unit: cost for rung, cost in zip(priced.rungs, prices, strict=True)}
    if display.as_json:
        display.result({"model": priced.model, "prices": found})
        return
    printing.table(
        [[unit, f"{cost:.4f}"] for unit, cost in found.items()],
        header=("step", "nats per token"),
        title=f"wrote {output}",
    )
