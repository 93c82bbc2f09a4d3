"""`secateur compare`: every method at the same size, measured alike, with the whole and the quantized model beside them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from secateur.cli.measure.evaluate import needs, parted
from secateur.cli.model.apply import arithmetic_of
from secateur.cli.shared import options, printing

if TYPE_CHECKING:
    from secateur.pipeline.compare.compare import Compared
    from secateur.pipeline.compare.protocol import Protocol
    from secateur.pipeline.compare.watcher import Watcher

QUICK_METHODS = (
    *("magnitude", "wanda", "ria", "sparsegpt", "width:criterion=flap", "width:criterion=minitron"),
    *("depth", "depth:sub-blocks"),
)
QUICK_TARGETS = ("ratio=0.2",)
QUICK = {
    "samples": 8,
    "calib_window": 512,
    "window": 1024,
    "count": 4,
    "prompt": 32,
    "tokens": 16,
    "repeat": 7,
}
SHORT = {
    "method": "method",
    "target": "target",
    "size reduction": "smaller",
    "speed gain": "faster",
    "native size, MB": "nat. MB",
    "native size reduction": "nat. smaller",
    "native speed gain": "nat. faster",
    "accuracy kept": "kept",
    "perplexity": "perpl.",
}
SHORT |= {
    "task accuracy": "tasks",
    "stereotyped pairs": "stereot.",
    "size, MB": "MB",
    "decode, tokens/s": "tok/s",
    "CPU, s": "CPU s",
}
"""The columns that a terminal has room for."""

_METHODS = (
    "Parted by commas: magnitude, wanda, ria, sparsegpt, alps, random, width, depth, auto; options after"
    " colons: width:criterion=flap:units=ffn+kv."
)
_TARGETS = (
    "Parted by commas: ratio=0.2 (of all block weights), params=80%, size=200MB, ram=300MB@ctx2048, or 2:4; +"
    " joins what must hold together."
)
_TASKS = (
    "Tasks of lm-eval, parted by commas: arc_easy,hellaswag; a later run in the same folder may add them."
)
_BACKENDS = (
    "Where speed is measured: llamacpp, torch, native, several parted by commas, or none; native adds the"
    " whole model in its int8 and int4."
)


def compare(
    model: options.Model,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Folder of the comparison; a later run goes on in it and repeats nothing."
        ),
    ],
    methods: Annotated[Optional[list[str]], typer.Option("--methods", help=_METHODS)] = None,
    targets: Annotated[Optional[list[str]], typer.Option("--targets", help=_TARGETS)] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Eight methods at ratio=0.2 with little text: minutes, and rougher figures."
        ),
    ] = False,
    text: Annotated[
        str, typer.Option("--text", help="Text that perplexity is measured on, as in `eval`.")
    ] = "builtin",
    window: Annotated[
        Optional[int], typer.Option("--window", min=2, help="Tokens per window of it (2048; quick 1024).")
    ] = None,
    count: Annotated[Optional[int], typer.Option("-n", min=1, help="Windows of it (20; quick 4).")] = None,
    compute: options.Compute = "float32",
    calib: options.Calib = "builtin",
    samples: Annotated[
        Optional[int], typer.Option("--samples", min=1, help="Windows of calibration text (64; quick 8).")
    ] = None,
    calib_window: Annotated[
        Optional[int], typer.Option("--calib-window", min=2, help="Tokens per calibration window (512).")
    ] = None,
    seed: options.Seed = 0,
    backends: Annotated[Optional[str], typer.Option("--backends", help=_BACKENDS)] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads while speed is measured.")] = 1,
    prompt: Annotated[
        Optional[int], typer.Option("--prompt", min=1, help="Tokens of prompt (256; quick 32).")
    ] = None,
    tokens: Annotated[
        Optional[int], typer.Option("--tokens", min=2, help="Tokens of answer (64; quick 16).")
    ] = None,
    repeat: Annotated[
        Optional[int],
        typer.Option("--repeat", min=1, help="Counted runs, in turns with the whole model (5; quick 7)."),
    ] = None,
    workers: Annotated[
        Optional[int], typer.Option("--workers", min=1, help="Rows at once; as many as there are cores.")
    ] = None,
    max_ram: Annotated[
        str, typer.Option("--max-ram", help="Memory for all processes together, such as 8G.")
    ] = "",
    tasks: Annotated[Optional[str], typer.Option("--tasks", help=_TASKS)] = None,
    limit: Annotated[
        Optional[int],
        typer.Option("--limit", min=1, help="Items of each task and of the audit, from the first."),
    ] = None,
    few_shot: Annotated[
        Optional[int], typer.Option("--few-shot", min=0, help="Solved examples before each item.")
    ] = None,
    datasets: Annotated[
        str,
        typer.Option(
            "--datasets", help="Folder laid out like the hub that holds the data of tasks and audit."
        ),
    ] = "",
    bias: Annotated[
        bool,
        typer.Option(
            "--bias", help="Audit bias of every row, as `eval --bias` does, against the whole model."
        ),
    ] = False,
    winogender: Annotated[
        str, typer.Option("--winogender", help="WinoGender's all_sentences.tsv, for --bias.")
    ] = "",
    engine: Annotated[
        str,
        typer.Option(
            "--engine", help="local processes, or ray: a cluster whose nodes share the output folder."
        ),
    ] = "local",
    keep_models: Annotated[
        bool,
        typer.Option(
            "--keep-models", help="Leave every pruned model in the folder; its plan makes it again otherwise."
        ),
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare methods of pruning on one model, and remember every figure."""
    given = {
        "samples": samples,
        "calib_window": calib_window,
        "window": window,
        "count": count,
        "prompt": prompt,
        "tokens": tokens,
        "repeat": repeat,
    }
    asked = _asked(tasks, bias, limit=limit, few_shot=few_shot, datasets=datasets, winogender=winogender)
    fixed = {"text": text, "compute": arithmetic_of(compute), "seed": seed, "threads": threads}
    how = {
        "workers": workers,
        "max_ram": options.memory("--max-ram", max_ram) if max_ram else None,
        "engine": engine,
        "keep": keep_models,
    }
    what: dict[str, Any] = {
        "methods": methods or (QUICK_METHODS if quick else None),
        "targets": targets or (QUICK_TARGETS if quick else None),
    }
    what["protocol"] = _protocol(given, calib, backends, quick=quick, **fixed, **asked)
    _run(model, output, what, how, quiet=quiet or as_json, as_json=as_json)


def _run(
    model: str, output: Path, what: dict[str, Any], how: dict[str, Any], *, quiet: bool, as_json: bool
) -> None:
    from secateur.pipeline.compare.compare import Running
    from secateur.pipeline.compare.compare import compare as run

    started = time.perf_counter()
    with _watching(quiet=quiet) as watcher:
        found = run(
            model,
            output,
            **{name: one for name, one in what.items() if one},
            running=Running(**how),
            watcher=watcher,
        )
    _print(found, time.perf_counter() - started, as_json=as_json)
    if found.failures:
        sys.exit(found.failures[0].code)


def _asked(
    tasks: str | None, bias: bool, *, limit: int | None, few_shot: int | None, datasets: str, winogender: str
) -> dict[str, Any]:
    """Return what every row is asked besides text; raises UsageError for options that would do nothing."""
    needs("--tasks", tasks, few_shot=few_shot)
    needs("--bias", bias, winogender=winogender or None)
    needs("--tasks or --bias", tasks or bias, limit=limit, datasets=datasets or None)
    found = {
        "tasks": tuple(parted(tasks)),
        "limit": limit if tasks else None,
        "shots": few_shot,
        "datasets": datasets,
    }
    return found | {"bias": bias, "bias_limit": limit if bias else None, "winogender": winogender}


def _protocol(
    given: dict[str, int | None], calib: str, backends: str | None, *, quick: bool, **others: Any
) -> Protocol:
    from secateur.calibrate.calibration import Calibration
    from secateur.pipeline.compare.protocol import Protocol
    from secateur.runtime.llamacpp import has_llamacpp

    said = {name: value for name, value in given.items() if value is not None}
    chosen: dict[str, Any] = {**(QUICK if quick else {}), **said}
    calibration = Calibration(
        text=calib, samples=chosen.pop("samples", 64), window=chosen.pop("calib_window", 512)
    )
    if backends is None:
        able = ("llamacpp",) if has_llamacpp() else ()
        names: tuple[str, ...] = able or ("torch",) if quick else (*able, "torch")
    else:
        names = () if backends == "none" else tuple(name.strip() for name in backends.split(","))
    return Protocol(calibration=calibration, backends=names, **others, **chosen)


def _print(found: Compared, seconds: float, *, as_json: bool) -> None:
    if as_json:
        rows = [
            {
                "row": cell.row.name,
                "kind": cell.row.kind,
                "failed": cell.failed,
                "notes": cell.notes,
                "records": _records(cell),
            }
            for cell in found.cells
        ]
        body = {
            "folder": str(found.folder),
            "rows": rows,
            "left_out": found.left_out,
            "seconds": round(seconds, 1),
            "peak_memory": found.peak,
        }
        print(json.dumps(body, indent=2, sort_keys=True))
        return
    _table(found)
    for line in (
        *found.left_out,
        *(
            f"{cell.row.name}: {note}"
            for cell in found.cells
            for note in (*cell.notes, *([cell.failed] if cell.failed else []))
        ),
    ):
        print(f"note: {line}", file=sys.stderr)
    most = f", at most {printing.size(found.peak)} of memory" if found.peak else ""
    print(f"{seconds:.0f} s{most}; `secateur report {found.folder}` makes a page of it", file=sys.stderr)


def _table(found: Compared) -> None:
    """Print the rows; what is the best at its target is green."""
    from rich.text import Text

    from secateur.present.columns import is_best, measured
    from secateur.present.summary_rows import lines_of

    lines = lines_of(found.cells)
    targets = {line.row.target for line in lines if line.row.target}
    columns = [
        column
        for column in measured(lines)
        if column.name in SHORT and (column.name != "target" or len(targets) > 1)
    ]
    rows = [
        [Text(column.text(line), style="bold green" if is_best(column, line) else "") for column in columns]
        for line in lines
    ]
    where = f" at {targets.pop()}" if len(targets) == 1 else ""
    printing.table(
        rows,
        header=[SHORT[column.name] for column in columns],
        title=f"{found.job.name}{where}: {len(lines)} rows",
    )


def _records(cell: Any) -> list[dict[str, Any]]:
    return [record.as_dict() for record in cell.records.values()]


@contextmanager
def _watching(*, quiet: bool) -> Iterator[Watcher]:
    """Yield what shows the rows at work.

    Bars on a terminal, a line for each that ends elsewhere, nothing when quiet.
    """
    from secateur.pipeline.compare.watcher import Unwatched

    if quiet:
        yield Unwatched()
        return
    if not sys.stderr.isatty():
        yield _RowLines()
        return
    from secateur.cli.shared.progress_bars import board

    with board() as shown:
        yield shown


class _RowLines:
    """A Watcher that writes a line for each row that ends."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._done = self._total = 0

    def begin(self, total: int) -> None:
        self._total = total

    def started(self, name: str, what: str) -> None:
        pass

    def moved(self, name: str, task: str, done: int, total: int) -> None:
        pass

    def ended(self, name: str, line: str) -> None:
        self._done += 1
        spent = time.perf_counter() - self._started
        left = spent / self._done * (self._total - self._done)
        print(
            f"[{self._done}/{self._total}] {spent:.0f} s, about {left:.0f} s left:"
            f" {name}{f' failed: {line}' if line else ''}",
            file=sys.stderr,
            flush=True,
        )

    def note(self, line: str) -> None:
        print(f"note: {line}", file=sys.stderr, flush=True)
