"""`secateur bench`: how fast a model runs and what it takes, beside a baseline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from secateur.cli import options, show

if TYPE_CHECKING:
    from secateur.pipeline.bench import Benched
    from secateur.runtime.bench import Spread

_LABELS = {"prompt": "prompt, tokens/s", "decode": "decode, tokens/s", "first": "first token, s"}


def bench(
    model: options.Model,
    backend: Annotated[str, typer.Option("--backend", help="torch or llamacpp.")] = "torch",
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads; no more than there are free cores.")] = 1,
    prompt: Annotated[int, typer.Option("--prompt", min=1, help="Tokens of prompt.")] = 256,
    tokens: Annotated[int, typer.Option("--tokens", min=2, help="Tokens of answer.")] = 64,
    repeat: Annotated[int, typer.Option("--repeat", min=1, help="Counted runs, after one that warms up.")] = 5,
    kind: Annotated[str, typer.Option("--type", help="Type of the weights: f32 or bf16 in torch; any of `secateur export` in llamacpp.")] = "",
    against: Annotated[Optional[str], typer.Option("--against", help="Baseline model, measured in turns with MODEL.")] = None,  # noqa: UP045
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure prompt and decode speed, time to the first token, peak memory and file size."""
    from secateur.pipeline.bench import Settings
    from secateur.pipeline.bench import bench as run

    settings = Settings(backend=backend, threads=threads, prompt=prompt, tokens=tokens, repeat=repeat, kind=kind.lower())
    with show.progress(quiet=quiet or as_json) as progress:
        found = run(model, against, settings, progress)
    if as_json:
        records = [record.as_dict() for one in found for record in one.records(settings)]
        print(json.dumps({"settings": asdict(settings), "models": [asdict(one) for one in found], "records": records}, indent=2, sort_keys=True))
        return
    header = ["", *(Path(one.model).name for one in found), *(["ratio"] if against else [])]
    show.table(_rows(found), header=header, title=f"{backend}, {threads} threads: median of {repeat} (lowest to highest)")


def _rows(found: Sequence[Benched]) -> list[list[str]]:
    first = found[0]
    rows = [[label, *(_figure(one.speeds[name]) for one in found), *([_figure(first.ratio[name])] if first.ratio else [])] for name, label in _LABELS.items()]
    for label, sizes in (("peak memory", [one.peak_memory for one in found]), ("file", [one.file_bytes for one in found])):
        rows.append([label, *map(show.size, sizes), *([f"{sizes[0] / sizes[1]:.3g}"] if first.ratio else [])])
    return rows


def _figure(spread: Spread) -> str:
    return f"{spread.median:.4g} ({spread.low:.3g} to {spread.high:.3g})"
