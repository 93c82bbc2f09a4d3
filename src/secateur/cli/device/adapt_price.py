"""`secateur adapt price`: what each step of a ladder costs on its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.device.adapt_train import Ladder
from secateur.cli.shared import options, printing
from secateur_runtime.files import refuse_existing


def price(
    model: options.Model,
    ladder: Ladder,
    output: Annotated[Path, typer.Option("--output", "-o", help="Ladder to write, a JSON file.")] = Path(
        "priced.json"
    ),
    calib: options.Calib = "builtin",
    samples: Annotated[
        int, typer.Option("--samples", min=1, help="Windows of text; as for rank, so that losses compare.")
    ] = 16,
    calib_window: options.CalibWindow = 512,
    probe: Annotated[
        int,
        typer.Option("--probe", min=1, help="Windows, of those, whose beginnings losses are measured on."),
    ] = 8,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure the whole model without each step, one at a time.

    Policies that leave the ladder's order need to know.
    """
    from secateur.adapt.ranking.pricing import price as run
    from secateur.calibrate.calibration import Calibration
    from secateur.model.handle import open_model
    from secateur_runtime.ladder_file import read_ladder
    from secateur_runtime.read_costs import choices_of

    refuse_existing(output, overwrite=overwrite)
    with printing.progress(quiet=quiet or as_json) as progress:
        calibration = Calibration(text=calib, samples=samples, window=calib_window)
        priced = run(
            open_model(model),
            read_ladder(ladder),
            calibration,
            probe=probe,
            scratch=output.parent,
            seed=seed,
            progress=progress,
        )
    priced.save(output, overwrite=overwrite)
    prices = choices_of(priced).prices.tolist()
    found = {rung.unit: cost for rung, cost in zip(priced.rungs, prices, strict=True)}
    if as_json:
        printing.result({"model": priced.model, "prices": found}, as_json=True)
        return
    printing.table(
        [[unit, f"{cost:.4f}"] for unit, cost in found.items()],
        header=("step", "nats per token"),
        title=f"wrote {output}",
    )
