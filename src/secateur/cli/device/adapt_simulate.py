"""`secateur adapt simulate`: replay a memory trace under several policies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from secateur.cli.device.adapt_options import KvBytes, Ladder, ResultOptions
from secateur.cli.shared import printing
from secateur.cli.shared.option_groups import DisplayOptions, with_options
from secateur_runtime.errors import OutputError

if TYPE_CHECKING:
    from secateur.adapt.replay.simulate import Simulated
    from secateur.adapt.replay.speed_model import Roofline
    from secateur.adapt.replay.traces import Moment

HEADER = ("policy", "perplexity", "requests killed", "tokens/s", "changes", "decision, us (median)", "(99 %)")
PAGE = "simulate.html"
_POLICIES = (
    "Comma-separated: {policies}, or static, the best single plan; all: every one, those that need --network"
    " only where it is given."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """What is replayed, under which policies, on which device."""

    trace: Annotated[
        str, typer.Option("--trace", help="steady, drift, bursts, or a recorded FILE.jsonl.")
    ] = "bursts"
    policies: Annotated[str, typer.Option("--policies", help=_POLICIES)] = "all"
    network: Annotated[
        Optional[Path], typer.Option("--network", help="File that `secateur adapt train` wrote, for dqn.")
    ] = None
    budget: Annotated[
        float,
        typer.Option("--budget", help="Made-up traces: memory as a share of what the whole model needs."),
    ] = 0.8
    per: Annotated[
        str,
        typer.Option(
            "--per", help="Whose need: of each request (as RAP counts), or of the largest, for a device."
        ),
    ] = "request"
    requests: Annotated[int, typer.Option("--requests", min=1, help="Requests in a made-up trace.")] = 50
    device: Annotated[
        str,
        typer.Option(
            "--device", help="Whose speed: local (measured now), or a profile that holds both rates."
        ),
    ] = "local"


@with_options
def simulate(
    *,
    ladder: Ladder,
    replayed: ReplayOptions,
    output: Annotated[
        Optional[Path],
        typer.Option("--output", "-o", help="Folder for simulate.html, two PNGs and the trace."),
    ] = None,
    kv_bytes: KvBytes = 4,
    result: ResultOptions,
    display: DisplayOptions,
) -> None:
    """Replay a trace under every policy: quality, requests killed, tokens per second and time to decide."""
    from secateur.adapt.replay.replay import policies_of, replay, trace_of
    from secateur.adapt.replay.speed_model import speed_of
    from secateur_runtime.ladder_file import read_ladder
    from secateur_runtime.read_costs import choices_of, priced

    if output is not None:
        _check_place(output, overwrite=result.overwrite)
    steps = read_ladder(ladder)
    choices = choices_of(steps, kv_bytes=kv_bytes)
    moments = trace_of(
        replayed.trace,
        choices,
        budget=replayed.budget,
        requests=replayed.requests,
        seed=result.seed,
        per=replayed.per,
    )
    names = [name.strip() for name in replayed.policies.split(",")]
    chosen = policies_of(names, choices, moments, replayed.network)
    speed = speed_of(replayed.device)
    with display.progress() as progress:
        runs = list(replay(choices, chosen, moments, speed, {}, progress))
    notes = _notes(replayed, result.seed, len(moments), speed, priced=priced(steps))
    rows = [_row(run) for run in runs]
    report = ReplayReport(notes, rows, runs, moments)
    files = report.write(output, overwrite=result.overwrite) if output is not None else []
    if display.as_json:
        body = {
            "trace": replayed.trace,
            "moments": len(moments),
            "notes": notes,
            "policies": {run.policy: run.summary() for run in runs},
        }
        print(json.dumps({**body, "files": [str(path) for path in files]}, indent=2))
        return
    printing.table(rows, header=HEADER, title=notes[0])
    printing.table([[note] for note in [*notes[1:], *(f"wrote {path}" for path in files)]])


def _check_place(output: Path, *, overwrite: bool) -> None:
    from secateur.present.charts import require_charts

    require_charts()
    html = output / PAGE
    if html.exists() and not overwrite:
        raise OutputError(f"{html} exists: choose another --output, or pass --overwrite")


def _notes(replayed: ReplayOptions, seed: int, moments: int, speed: Roofline, *, priced: bool) -> list[str]:
    """Return what a reader must know of the figures; the first note is their title."""
    whose = "each request" if replayed.per == "request" else "the largest request"
    made = f" made up with seed {seed}: {replayed.budget:.0%} of what {whose} needs"
    notes = [
        (
            f"Trace {Path(replayed.trace).name}{'' if replayed.trace.endswith('.jsonl') else made}. {moments}"
            " moments, weights and KV cache only."
        ),
        (
            "Loss is that of the ranking text: measured for levels of the ladder, estimated from them for"
            " other sets of units."
        ),
        (
            f"Speed is estimated from {speed.bytes / 1e9:.3g} GB/s and {speed.operations / 1e9:.3g} G"
            f" operations/s ({speed.source})."
        ),
    ]
    if not priced:
        notes.append(
            "The ladder was not priced: what steps cost on their own is a guess: `secateur adapt price`"
            " measures it."
        )
    return notes


def _row(run: Simulated) -> list[str]:
    figures = run.summary()
    took = [f"{figures[name]:.0f}" for name in ("decision_median_us", "decision_p99_us")]
    return [
        run.policy,
        f"{figures['perplexity']:.3f}",
        f"{figures['killed']:.1%}",
        f"{figures['tokens_per_second']:.1f}",
        str(figures["changes"]),
        *took,
    ]


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What is written of a replay."""

    notes: Sequence[str]
    rows: list[list[str]]
    runs: Sequence[Simulated]
    moments: Sequence[Moment]

    def write(self, output: Path, *, overwrite: bool) -> list[Path]:
        """Write page, charts and trace to the folder `output`, and return their paths."""
        from secateur.adapt.replay.replay_charts import page, pictures
        from secateur.adapt.replay.traces import write_trace
        from secateur.present.charts import write_png

        charts = pictures(self.runs)
        html = output / PAGE
        scratch = output / f"{PAGE}.tmp"
        try:
            output.mkdir(parents=True, exist_ok=True)
            scratch.write_text(
                page("What would each policy have made of this?", self.notes, HEADER, self.rows, charts),
                encoding="utf-8",
            )
            scratch.replace(html)
        except OSError as error:
            raise OutputError(f"cannot write {html}: {error.strerror or error}") from error
        files = [html]
        for name, spec in charts.items():
            files.append(output / f"{name}.png")
            write_png(files[-1], spec)
        files.append(output / "trace.jsonl")
        write_trace(files[-1], self.moments, about=self.notes[0], overwrite=overwrite)
        return files
