"""`secateur eval`: how good a model still is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from secateur.cli import options, show
from secateur.cli.apply import arithmetic_of
from secateur.core.errors import UsageError

if TYPE_CHECKING:
    from secateur.measure.tasks import Metric
    from secateur.pipeline.tasks import Tasked

_TASKS = "Tasks of lm-eval, parted by commas: arc_easy,hellaswag. Perplexity is measured beside them only with --text."


def evaluate(
    model: options.Model,
    text: Annotated[Optional[str], typer.Option("--text", help="Text file (.txt, .raw, .jsonl), hf:DATASET:CONFIG:SPLIT, or builtin (default).")] = None,  # noqa: UP045
    window: Annotated[int, typer.Option("--window", min=2, help="Tokens per window.")] = 2048,
    count: Annotated[int, typer.Option("-n", min=1, help="Windows to measure.")] = 20,
    reference: Annotated[Optional[str], typer.Option("--reference", help="Model to compare with, usually the dense parent.")] = None,  # noqa: UP045
    tasks: Annotated[Optional[str], typer.Option("--tasks", help=_TASKS)] = None,  # noqa: UP045
    metrics: Annotated[Optional[str], typer.Option("--metrics", help="Only these figures of the tasks: acc,acc_norm.")] = None,  # noqa: UP045
    limit: Annotated[Optional[int], typer.Option("--limit", min=1, help="Items of each task, from the first.")] = None,  # noqa: UP045
    few_shot: Annotated[Optional[int], typer.Option("--few-shot", min=0, help="Solved examples before each item; the task's own number by default.")] = None,  # noqa: UP045
    datasets: Annotated[Optional[Path], typer.Option("--datasets", help="Folder laid out like the hub that holds the tasks' data.")] = None,  # noqa: UP045
    compute: options.Compute = "float32",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure perplexity, tasks, and the divergence from a reference model."""
    arithmetic = arithmetic_of(compute)
    if not tasks and (limit or few_shot is not None or datasets or metrics):
        raise UsageError("--metrics, --limit, --few-shot and --datasets are about tasks: name some with --tasks")
    from secateur import pipeline

    started, body, tables = time.perf_counter(), dict[str, Any](model=model), list[_Table]()
    with show.progress(quiet=quiet or as_json) as progress:
        if tasks:
            wanted: dict[str, Any] = {"limit": limit, "shots": few_shot, "datasets": datasets, "compute": arithmetic, "progress": progress}
            scored = [pipeline.evaluate_tasks(each, _parted(tasks), **wanted) for each in (model, reference) if each]
            found, tables = _task_body(scored, _parted(metrics))
            body |= found
        if text or not tasks:
            text = text or "builtin"
            quality = pipeline.evaluate(model, text=text, window=window, count=count, reference=reference, compute=arithmetic, progress=progress)
            body |= {"text": text, "window": window, "windows": len(quality.nll_windows), "tokens": quality.tokens}
            body |= {"perplexity": quality.perplexity, "nll": quality.nll, "nll_standard_error": quality.standard_error}
            body |= {"reference": reference, "kl": quality.kl, "agreement": quality.agreement} if reference else {}
    body["seconds"] = round(time.perf_counter() - started, 1)
    show.result(body if as_json else {key: value for key, value in body.items() if not isinstance(value, dict | list)}, as_json=as_json)
    for title, header, rows in [] if as_json else tables:
        show.table(rows, header=header, title=f"\n{title}")


_Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]


def _parted(names: str | None) -> list[str]:
    return [name.strip() for name in (names or "").split(",") if name.strip()]


def _task_body(scored: Sequence[Tasked], metrics: Sequence[str]) -> tuple[dict[str, Any], list[_Table]]:
    """Return what is printed of the scores of a model, and of its reference where there is one, as JSON and as one table a kind."""
    from secateur.measure.tasks import chosen, shift

    ours, *theirs = scored
    picked = chosen(ours.scores, metrics)
    body: dict[str, Any] = {}
    rows: dict[str, list[list[str]]] = {}
    for score in ours.scores:
        body[score.task] = {field: getattr(score, field) for field in ("kind", "items", "available", "shots", "version")} | {"metrics": {}}
        for metric in picked[score.task]:
            figures: dict[str, Any] = {"value": metric.value, "standard_error": metric.error}
            row = [score.task, metric.name, _figure(metric), str(score.items)]
            for other in (tasked[score.task][metric.name] for tasked in theirs):
                moved = shift(metric, other)
                figures |= {"reference": other.value, "reference_standard_error": other.error, "shift": moved.value, "shift_standard_error": moved.error}
                row += [_figure(other), f"{moved.value:+.4g}" + {True: " (within noise)", False: "", None: ""}[moved.within_noise]]
            body[score.task]["metrics"][metric.name] = figures
            rows.setdefault(score.kind, []).append(row)
    records = [record.as_dict() for tasked in scored for record in tasked.records()]
    header = ["task", "figure", "value", "items", *(["reference", "shift"] if theirs else [])]
    return {"tasks": body, "records": records}, [(kind, header, rows[kind]) for kind in rows]


def _figure(metric: Metric) -> str:
    return f"{metric.value:.4f}" + (f" ± {metric.error:.4f}" if metric.error is not None else "")
