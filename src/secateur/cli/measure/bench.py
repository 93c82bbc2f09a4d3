"""`secateur bench`: how fast a model runs and what it takes, compared with a baseline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from secateur.cli.shared import options, printing
from secateur.cli.shared.option_groups import DisplayOptions, with_options
from secateur_runtime.errors import UsageError

if TYPE_CHECKING:
    from secateur.pipeline.bench.bench import Benched, BenchSettings
    from secateur.pipeline.bench.quantized_baselines import EvaluationText, TimedRow
    from secateur.runtime.native import About
    from secateur.runtime.timed_turns import Spread

_TYPES = (
    "Type of the weights: f32 or bf16 in torch; any of `secateur export` in llamacpp; in native f32, bf16,"
    " int8, int4, sparse-bf16, sparse-int8, sparse-int4."
)
_BESIDE = (
    "The whole model, timed in turns with MODEL: in native bf16, int8 and int4, and in llama.cpp's q8_0 and"
    " q4_0."
)
_LABELS = {"prompt": "prompt, tokens/s", "decode": "decode, tokens/s", "first": "first token, s"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingOptions:
    """What is timed, and how often."""

    backend: Annotated[str, typer.Option("--backend", help="torch, llamacpp or native.")] = "torch"
    threads: Annotated[
        int, typer.Option("--threads", min=1, help="Threads; no more than there are free cores.")
    ] = 1
    prompt: Annotated[int, typer.Option("--prompt", min=1, help="Tokens of prompt.")] = 256
    tokens: Annotated[int, typer.Option("--tokens", min=2, help="Tokens of answer.")] = 64
    repeat: Annotated[int, typer.Option("--repeat", min=1, help="Counted runs, after one that warms up.")] = 5
    kind: Annotated[str, typer.Option("--type", help=_TYPES)] = ""

    def settings(self) -> BenchSettings:
        """Return the settings that these options ask for."""
        from secateur.pipeline.bench.bench import BenchSettings

        return BenchSettings(
            backend=self.backend,
            threads=self.threads,
            prompt=self.prompt,
            tokens=self.tokens,
            repeat=self.repeat,
            kind=self.kind.lower(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityOptions:
    """Text that perplexity is measured on, with --beside."""

    text: Annotated[
        Optional[str], typer.Option("--text", help="With --beside: text that perplexity is measured on.")
    ] = None
    window: Annotated[int, typer.Option("--window", min=2, help="Tokens per window of that text.")] = 2048
    count: Annotated[int, typer.Option("-n", min=1, help="Windows of that text.")] = 20

    def text_for(self, whole: str | None) -> EvaluationText | None:
        """Return the text, None where none is asked for; raises UsageError for a text without --beside."""
        if not self.text:
            return None
        if not whole:
            raise UsageError(
                "--text is what --beside measures quality on: add --beside with the whole model, or use"
                " `secateur eval`"
            )
        from secateur.pipeline.bench.quantized_baselines import EvaluationText

        return EvaluationText(text=self.text, window=self.window, count=self.count)


@with_options
def bench(
    *,
    model: options.Model,
    timing: TimingOptions,
    against: Annotated[
        Optional[str], typer.Option("--against", help="Baseline model, measured in turns with MODEL.")
    ] = None,
    beside: Annotated[Optional[str], typer.Option("--beside", help=_BESIDE)] = None,
    quality: QualityOptions,
    display: DisplayOptions,
) -> None:
    """Measure prompt and decode speed, time to the first token, peak memory and file size."""
    from secateur.pipeline.bench.bench import bench as run

    settings = timing.settings()
    text = quality.text_for(beside)
    if beside:
        from secateur.pipeline.bench.quantized_baselines import beside as run_baselines

        with display.progress() as progress:
            lines = run_baselines(model, beside, settings, text, progress)
        if display.as_json:
            records = [record.as_dict() for row in lines for record in row.records(settings, text)]
            _print_json(settings, "rows", lines, records)
        else:
            _print_baselines(lines, settings, with_quality=text is not None)
        return
    with display.progress() as progress:
        found = run(model, against, settings, progress)
    if display.as_json:
        records = [record.as_dict() for one in found for record in one.records(settings)]
        _print_json(settings, "models", found, records)
    else:
        _print_speeds(found, settings)


def _print_json(
    settings: BenchSettings, name: str, found: Sequence[Benched | TimedRow], records: list[dict[str, Any]]
) -> None:
    body = {"settings": asdict(settings), name: [asdict(one) for one in found], "records": records}
    print(json.dumps(body, indent=2, sort_keys=True))


def _print_speeds(found: Sequence[Benched], settings: BenchSettings) -> None:
    ratio = ["ratio"] if found[0].ratio else []
    printing.table(
        _rows(found),
        header=["", *(Path(one.model).name for one in found), *ratio],
        title=(
            f"{settings.backend}, {settings.threads} threads: median of {settings.repeat} (lowest to highest)"
        ),
    )
    for one in found:
        if one.native:
            print()
            printing.table(
                _matrices(one.native),
                header=["rows x columns", "runs as", "matrices", "kept: us without zeros or with"],
                title=f"{Path(one.model).name}: {one.native.isa}",
            )


def _matrices(native: About) -> list[list[str]]:
    """Return, for each shape, how its matrices run, how many there are, and the times of sparse ones.

    Times: microseconds of a matrix-vector product from memory, without the zeros or with them.
    """
    took: dict[tuple[int, int], list[str]] = {}
    for one in native.timed:
        took.setdefault((one.rows, one.columns), []).append(
            f"{one.density:.0%}: {one.sparse * 1e6:.0f} or {one.dense * 1e6:.0f}"
        )
    return [
        [f"{rows} x {columns}", kind, str(count), ", ".join(took.get((rows, columns), []))]
        for rows, columns, kind, count in native.kinds
    ]


def _print_baselines(found: Sequence[TimedRow], settings: BenchSettings, *, with_quality: bool) -> None:
    header = [
        "",
        "weights",
        "decode, tokens/s",
        "first by this",
        "of bandwidth",
        *(["perplexity"] if with_quality else []),
    ]
    rows = [
        [
            row.name,
            printing.size(row.bytes),
            _figure(row.decode),
            _figure(row.ratio),
            f"{row.benched.stream.median:.0%}" if row.benched.stream else "",
        ]
        + ([f"{row.perplexity:.4g}"] if row.perplexity else [])
        for row in found
    ]
    printing.table(
        rows,
        header=header,
        title=f"{settings.threads} threads: median of {settings.repeat} (lowest to highest), in turns",
    )


def _rows(found: Sequence[Benched]) -> list[list[str]]:
    first = found[0]
    rows = [
        [
            label,
            *(_figure(one.speeds[name]) for one in found),
            *([_figure(first.ratio[name])] if first.ratio else []),
        ]
        for name, label in _LABELS.items()
    ]
    sized = {"peak memory": [one.peak_memory for one in found], "file": [one.file_bytes for one in found]}
    if first.native:
        sized["read for each token"] = [one.native.read for one in found if one.native]
    if first.stream:
        rows.append(
            [
                "share of bandwidth",
                *(f"{one.stream.median:.0%}" if one.stream else "" for one in found),
                *([""] if first.ratio else []),
            ]
        )
    for label, sizes in sized.items():
        rows.append(
            [label, *map(printing.size, sizes), *([f"{sizes[0] / sizes[1]:.3g}"] if first.ratio else [])]
        )
    return rows


def _figure(spread: Spread) -> str:
    return f"{spread.median:.4g} ({spread.low:.3g} to {spread.high:.3g})"
