"""`secateur adapt train`: a small network that decides what a model gives up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.device.adapt_options import KvBytes, Ladder, ResultOptions
from secateur.cli.shared.option_groups import DisplayOptions, with_options
from secateur_runtime.errors import UsageError
from secateur_runtime.files import refuse_existing


@with_options
def train(
    *,
    ladder: Ladder,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write, a .safetensors.")] = Path(
        "policy.safetensors"
    ),
    formulation: Annotated[
        str, typer.Option("--formulation", help="What it chooses: units, one after another, or a level.")
    ] = "units",
    steps: Annotated[int, typer.Option("--steps", min=100, help="Decisions to learn from.")] = 100_000,
    kv_bytes: KvBytes = 4,
    result: ResultOptions,
    display: DisplayOptions,
) -> None:
    """Train a policy by deep Q-learning on made-up traces, and score it next to untrained policies."""
    from secateur.adapt.training.train import held_out, mean_quality, require_training
    from secateur.adapt.training.train import train as run
    from secateur_runtime.ladder_file import read_ladder
    from secateur_runtime.policies import make_policy, untrained
    from secateur_runtime.read_costs import choices_of

    refuse_existing(output, overwrite=result.overwrite)
    if formulation not in ("units", "level"):
        raise UsageError(f"--formulation {formulation}: it chooses units, one after another, or a level")
    require_training()
    choices = choices_of(read_ladder(ladder), kv_bytes=kv_bytes)
    with display.progress() as progress:
        trained = run(
            choices,
            formulation="units" if formulation == "units" else "level",
            steps=steps,
            seed=result.seed,
            progress=progress,
        )
    trained.network.save(output, overwrite=result.overwrite)
    moments = held_out(choices, result.seed)
    others = untrained(fits=True)
    body = {
        "ladder": choices.ladder,
        "trained": trained.network.trained,
        "parameters": trained.network.parameters,
        "bytes": output.stat().st_size,
        "share_of_decoding": 2 * trained.network.parameters / float(choices.flops[0]),
        "quality_dqn": trained.quality,
        **{f"quality_{name}": mean_quality(choices, make_policy(name, choices), moments) for name in others},
    }
    display.result(body, title=f"wrote {output}")
