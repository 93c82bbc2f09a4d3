"""`secateur adapt simulate`: what each policy would have made of a trace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from secateur.cli.device.adapt_train import KvBytes, Ladder
from secateur.cli.shared import options, printing
from secateur_runtime.errors import OutputError

if TYPE_CHECKING:
    from secateur.adapt.replay.simulate import Simulated

HEADER = ("policy", "perplexity", "requests killed", "tokens/s", "changes", "decision, us (median)", "(99 %)")
_ALL = "none,threshold,greedy,cost-aware,knapsack,static"


def simulate(
    ladder: Ladder,
    trace: Annotated[
        str, typer.Option("--trace", help="steady, drift, bursts, or a recorded FILE.jsonl.")
    ] = "bursts",
    policies: Annotated[
        str,
        typer.Option("--policies", help="By commas; static is the best single plan, dqn needs --network."),
    ] = _ALL,
    network: Annotated[
        Optional[Path], typer.Option("--network", help="File that `secateur adapt train` wrote, for dqn.")
    ] = None,
    budget: Annotated[
        float,
        typer.Option("--budget", help="Made-up traces: memory as a share of what the whole model needs."),
    ] = 0.8,
    per: Annotated[
        str,
        typer.Option(
            "--per", help="Whose need: of each request (as RAP counts), or of the largest, for a device."
        ),
    ] = "request",
    requests: Annotated[int, typer.Option("--requests", min=1, help="Requests in a made-up trace.")] = 50,
    device: Annotated[
        str,
        typer.Option(
            "--device", help="Whose speed: local (measured now), or a profile that holds both rates."
        ),
    ] = "local",
    output: Annotated[
        Optional[Path],
        typer.Option("--output", "-o", help="Folder for simulate.html, two PNGs and the trace."),
    ] = None,
    kv_bytes: KvBytes = 4,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Replay a trace under every policy: quality, requests killed, tokens per second and time to decide."""
    import psutil

    from secateur.adapt.replay.replay import policies_of, replay, trace_of
    from secateur.adapt.replay.speed_model import speed_of
    from secateur.present.charts import require_charts
    from secateur_runtime.ladder_file import read_ladder
    from secateur_runtime.read_costs import choices_of, priced

    if output is not None:
        require_charts()
        if (output / "simulate.html").exists() and not overwrite:
            raise OutputError(
                f"{output / 'simulate.html'} exists: choose another --output, or pass --overwrite"
            )
    steps = read_ladder(ladder)
    choices = choices_of(steps, kv_bytes=kv_bytes)
    moments = trace_of(trace, choices, budget=budget, requests=requests, seed=seed, per=per)
    chosen = policies_of([name.strip() for name in policies.split(",")], choices, moments, network)
    speed = speed_of(device, psutil.virtual_memory().total)
    with printing.progress(quiet=quiet or as_json) as progress:
        runs = list(replay(choices, chosen, moments, speed, {}, progress))
    made = (
        f" made up with seed {seed}: {budget:.0%} of what"
        f" {'each request' if per == 'request' else 'the largest request'} needs"
    )
    notes = [
        (
            f"Trace {Path(trace).name}{'' if trace.endswith('.jsonl') else made}. {len(moments)} moments,"
            " weights and KV cache only."
        ),
        (
            "Loss is that of the ranking text: measured for levels of the ladder, reckoned from them for"
            " other sets of units."
        ),
        (
            f"Speed is reckoned from {speed.bytes / 1e9:.3g} GB/s and {speed.operations / 1e9:.3g} G"
            f" operations/s ({speed.source})."
        ),
    ]
    if not priced(steps):
        notes.append(
            "The ladder was not priced: what steps cost on their own is a guess: `secateur adapt price`"
            " measures it."
        )
    rows = [_row(run) for run in runs]
    files = _write(output, notes, rows, runs, moments, overwrite=overwrite) if output is not None else []
    if as_json:
        body = {
            "trace": trace,
            "moments": len(moments),
            "notes": notes,
            "policies": {run.policy: run.summary() for run in runs},
        }
        print(json.dumps({**body, "files": [str(path) for path in files]}, indent=2))
        return
    printing.table(rows, header=HEADER, title=notes[0])
    printing.table([[note] for note in [*notes[1:], *(f"wrote {path}" for path in files)]])


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


def _write(
    output: Path,
    notes: Sequence[str],
    rows: list[list[str]],
    runs: Sequence[Simulated],
    moments: Sequence[Any],
    *,
    overwrite: bool,
) -> list[Path]:
    from secateur.adapt.replay.replay_charts import page, pictures
    from secateur.adapt.replay.traces import write_trace
    from secateur.present.charts import write_png

    charts = pictures(runs)
    html = output / "simulate.html"
    scratch = output / "simulate.html.tmp"
    try:
        output.mkdir(parents=True, exist_ok=True)
        scratch.write_text(
            page("What would each policy have made of this?", notes, HEADER, rows, charts), encoding="utf-8"
        )
        scratch.replace(html)
    except OSError as error:
        raise OutputError(f"cannot write {html}: {error.strerror or error}") from error
    files = [html]
    for name, spec in charts.items():
        files.append(output / f"{name}.png")
        write_png(files[-1], spec)
    files.append(output / "trace.jsonl")
    write_trace(files[-1], moments, about=notes[0], overwrite=overwrite)
    return files
