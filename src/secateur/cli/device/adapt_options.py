"""Options that the verbs of `secateur adapt` share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.shared import options
from secateur.cli.shared.option_groups import CalibrationOptions

Ladder = Annotated[Path, typer.Argument(help="Ladder that `secateur adapt rank` wrote.", metavar="LADDER")]
LadderOut = Annotated[Path, typer.Option("--output", "-o", help="Ladder to write, a JSON file.")]
KvBytes = Annotated[int, typer.Option("--kv-bytes", min=1, max=8, help="Bytes of a number in the KV cache.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementText(CalibrationOptions):
    """Text that units are ordered by, and how many of its windows losses are measured on."""

    samples: Annotated[
        int, typer.Option("--samples", min=1, help="Windows of text; as for rank, so that losses compare.")
    ] = 16
    probe: Annotated[
        int,
        typer.Option("--probe", min=1, help="Windows, of those, whose beginnings losses are measured on."),
    ] = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultOptions:
    """Seed of the work, and whether its result may replace an older one."""

    seed: options.Seed = 0
    overwrite: options.Overwrite = False
