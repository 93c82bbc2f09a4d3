"""`secateur eval`: how good a model still is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from secateur.cli.model.apply import arithmetic_of
from secateur.cli.shared import options, printing
from secateur_runtime.errors import UsageError, VerificationError, nearest

if TYPE_CHECKING:
    from secateur.measure.perplexity import Quality
    from secateur.pipeline.evaluate.bias_audit import Audit
    from secateur.pipeline.evaluate.tasks import TaskResult

_TASKS = (
    "Tasks of lm-eval, parted by commas: arc_easy,hellaswag. Perplexity is measured beside them, or beside"
    " --bias, only with --text."
)
_GATE = (
    "Exit with 3 if a figure is further from neutral than the reference's by more than this share (or nats a"
    " token), and not by noise."
)

_BACKENDS = ("torch", "native")

_INCOMPARABLE = ("kl", "agreement", "next_token_accuracy", "per_token_of")
"""Figures that are none where model and reference read other tokens."""

_ACROSS = (
    "figures are per token of the latter, and divergence, agreement and accuracy, which compare single"
    " tokens, are left out"
)

_Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""Title, header, rows."""


def evaluate(
    model: options.Model,
    text: Annotated[
        Optional[str],
        typer.Option(
            "--text", help="Text file (.txt, .raw, .jsonl), hf:DATASET:CONFIG:SPLIT, or builtin (default)."
        ),
    ] = None,
    window: Annotated[int, typer.Option("--window", min=2, help="Tokens per window.")] = 2048,
    count: Annotated[int, typer.Option("-n", min=1, help="Windows to measure.")] = 20,
    reference: Annotated[
        Optional[str], typer.Option("--reference", help="Model to compare with, usually the dense parent.")
    ] = None,
    tasks: Annotated[Optional[str], typer.Option("--tasks", help=_TASKS)] = None,
    metrics: Annotated[
        Optional[str], typer.Option("--metrics", help="Only these figures of the tasks: acc,acc_norm.")
    ] = None,
    limit: Annotated[
        Optional[int],
        typer.Option("--limit", min=1, help="Items of each task and of the audit, from the first."),
    ] = None,
    few_shot: Annotated[
        Optional[int],
        typer.Option(
            "--few-shot", min=0, help="Solved examples before each item; the task's own number by default."
        ),
    ] = None,
    datasets: Annotated[
        Optional[Path],
        typer.Option(
            "--datasets", help="Folder laid out like the hub that holds the data of tasks and audit."
        ),
    ] = None,
    bias: Annotated[
        bool,
        typer.Option(
            "--bias",
            help="Audit bias: CrowS-Pairs by category and, with --winogender, sentences in three genders.",
        ),
    ] = False,
    winogender: Annotated[
        Optional[Path],
        typer.Option("--winogender", help="WinoGender's all_sentences.tsv, or the folder that holds it."),
    ] = None,
    max_bias_shift: Annotated[Optional[float], typer.Option("--max-bias-shift", min=0.0, help=_GATE)] = None,
    compute: options.Compute = "float32",
    backend: Annotated[
        str, typer.Option("--backend", help="What perplexity is measured in: torch or native.")
    ] = "torch",
    kind: Annotated[
        str,
        typer.Option(
            "--type",
            help=(
                "Type of the weights in native: f32, bf16, int8, int4, sparse-bf16, sparse-int8, sparse-int4."
            ),
        ),
    ] = "",
    threads: Annotated[
        int, typer.Option("--threads", min=1, help="Threads in native; no more than there are free cores.")
    ] = 1,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure perplexity, tasks, bias, and the divergence from a reference model."""
    common: dict[str, Any] = {"compute": arithmetic_of(compute)}
    needs("--tasks", tasks, metrics=metrics, few_shot=few_shot)
    needs("--bias", bias, winogender=winogender, max_bias_shift=max_bias_shift)
    needs("--tasks or --bias", tasks or bias, limit=limit, datasets=datasets)
    needs("--reference", reference, max_bias_shift=max_bias_shift)
    needs(
        "--backend native", backend == "native", type=kind or None, threads=threads if threads > 1 else None
    )
    if backend not in _BACKENDS:
        raise UsageError(
            f"unknown --backend {backend!r}{nearest(backend, _BACKENDS)}; known: {', '.join(_BACKENDS)}"
        )
    from secateur.pipeline.evaluate.bias_audit import audit_bias
    from secateur.pipeline.evaluate.evaluate import evaluate
    from secateur.pipeline.evaluate.native_model import NativeOptions
    from secateur.pipeline.evaluate.tasks import evaluate_tasks

    started = time.perf_counter()
    body = dict[str, Any](model=model)
    audit = None
    with printing.progress(quiet=quiet or as_json) as progress:
        common["progress"] = progress
        items: dict[str, Any] = {"limit": limit, "datasets": datasets}
        if tasks:
            scored = [
                evaluate_tasks(each, parted(tasks), shots=few_shot, **items, **common)
                for each in (model, reference)
                if each
            ]
            body |= _task_body(scored, parted(metrics))
        if bias:
            audit = audit_bias(model, reference, winogender=winogender, **items, **common)
            body |= {
                "bias": _bias_body(audit, max_bias_shift),
                "records": [*body.get("records", []), *(record.as_dict() for record in audit.records())],
            }
        if text or not (tasks or bias):
            text = text or "builtin"
            native = NativeOptions(kind=kind.lower(), threads=threads) if backend == "native" else None
            quality = evaluate(
                model, text=text, window=window, count=count, reference=reference, native=native, **common
            )
            body |= {"text": text, "window": window, **_quality_body(quality, reference)}
            body["records"] = [
                *body.get("records", []),
                *_records(model, text, window, quality, common["compute"]),
            ]
    _print(body | {"seconds": round(time.perf_counter() - started, 1)}, as_json=as_json)
    if audit and max_bias_shift is not None:
        _gate(audit, max_bias_shift)


def _quality_body(quality: Quality, reference: str | None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "windows": len(quality.nll_windows),
        "tokens": quality.tokens,
        "perplexity": quality.perplexity,
        "nll": quality.nll,
    }
    body |= {"nll_standard_error": quality.standard_error, "next_token_accuracy": quality.accuracy}
    if reference:
        body |= {
            "reference": reference,
            "kl": quality.kl,
            "agreement": quality.agreement,
            "per_token_of": quality.per_token_of,
        }
    if quality.per_token_of:
        body |= {"reference_perplexity": quality.reference_perplexity, "bits_per_byte": quality.bits_per_byte}
    return body


def _records(model: str, text: str, window: int, quality: Quality, compute: str) -> list[dict[str, Any]]:
    from secateur.calibrate.text import read_text
    from secateur.measure.perplexity import described
    from secateur.model.handle import open_model
    from secateur.model.written.plan_file import plan_digest

    opened = open_model(model)
    read = read_text(text)
    words = described(read.origin, read.digest, len(quality.nll_windows), window, compute)
    if quality.per_token_of:
        words += (
            f", per token of {Path(quality.per_token_of).name}"
            f" ({open_model(quality.per_token_of).digest[:19]}...), whose windows these are"
        )
    return [record.as_dict() for record in quality.records(words, opened.digest, plan_digest(opened))]


def needs(option: str, given: object, **others: object) -> None:
    """Raise UsageError for options that are given and do nothing without `option`."""
    useless = ["--" + name.replace("_", "-") for name, value in others.items() if value is not None]
    if useless and not given:
        raise UsageError(f"{' and '.join(useless)} would do nothing here: add {option}")


def parted(names: str | None) -> list[str]:
    """Return what commas part."""
    return [name.strip() for name in (names or "").split(",") if name.strip()]


def _task_body(scored: Sequence[TaskResult], metrics: Sequence[str]) -> dict[str, Any]:
    """Return the scores of a model, beside those of its reference where there is one."""
    from secateur.measure.task_scores import chosen, shift

    ours, *theirs = scored
    picked = chosen(ours.scores, metrics)
    body: dict[str, Any] = {}
    for score in ours.scores:
        figures: dict[str, Any] = {}
        for metric in picked[score.task]:
            figures[metric.name] = {"value": metric.value, "standard_error": metric.error}
            for other in (tasked[score.task][metric.name] for tasked in theirs):
                moved = shift(metric, other)
                figures[metric.name] |= {"reference": other.value, "reference_standard_error": other.error}
                figures[metric.name] |= {
                    "shift": moved.value,
                    "shift_standard_error": moved.error,
                    "within_noise": moved.within_noise,
                }
        about = {field: getattr(score, field) for field in ("kind", "items", "available", "shots", "version")}
        body[score.task] = about | {"metrics": figures}
    return {"tasks": body, "records": [record.as_dict() for tasked in scored for record in tasked.records()]}


def _bias_body(audit: Audit, most: float | None) -> dict[str, Any]:
    """Return what an audit found, with its verdict where there is a limit."""
    figures = {}
    for found in audit.findings:
        row: dict[str, Any] = {
            "unit": found.unit,
            "items": found.items,
            "independent_items": found.independent,
            "neutral": found.neutral,
            "said": found.said,
        }
        for name, interval in (
            ("value", found.value),
            ("reference", found.reference),
            ("worse", found.worse),
        ):
            row |= (
                {name: interval.value, f"{name}_interval": [interval.low, interval.high]} if interval else {}
            )
        figures[found.name] = row | ({"verdict": found.verdict(most)} if most is not None else {})
    body = {"protocol": audit.protocol, "reference": audit.reference, "figures": figures}
    return body | ({"max_shift": most, "verdict": audit.verdict(most)} if most is not None else {})


def _print(body: dict[str, Any], *, as_json: bool) -> None:
    flat = {
        key: value
        for key, value in body.items()
        if not isinstance(value, dict | list) and not (value is None and key in _INCOMPARABLE)
    }
    printing.result(body if as_json else flat, as_json=as_json)
    if body.get("per_token_of") and not as_json:
        print(f"{body['model']} reads other tokens than {body['per_token_of']}: {_ACROSS}")
    for title, header, rows in (
        [] if as_json else [*_task_tables(body.get("tasks", {})), *_bias_table(body.get("bias"))]
    ):
        print()
        printing.table(rows, header=header, title=title)


def _task_tables(tasks: dict[str, Any]) -> list[_Table]:
    """Return a table for each kind of task: figures of different kinds are not to be averaged."""
    rows: dict[str, list[list[str]]] = {}
    for name, score in tasks.items():
        for metric, figure in score["metrics"].items():
            row = [name, metric, _with_error(figure["value"], figure["standard_error"]), str(score["items"])]
            if "reference" in figure:
                noise = " (within noise)" if figure["within_noise"] else ""
                row += [
                    _with_error(figure["reference"], figure["reference_standard_error"]),
                    f"{figure['shift']:+.4g}{noise}",
                ]
            rows.setdefault(score["kind"], []).append(row)
    header = ["task", "figure", "value", "items", "reference", "shift"]
    return [(kind, header[: len(lines[0])], lines) for kind, lines in rows.items()]


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.4f}" + (f" ± {error:.4f}" if error is not None else "")


def _bias_table(bias: dict[str, Any] | None) -> list[_Table]:
    if not bias:
        return []
    rows = []
    for name, row in bias["figures"].items():
        cells = [name, _with_interval(row, "value"), str(row["items"])]
        cells += (
            [f"{row['reference']:.3f}", _with_interval(row, "worse") if "worse" in row else ""]
            if bias["reference"]
            else []
        )
        rows.append([*cells, row["said"], *([row["verdict"]] if "verdict" in row else [])])
    header = [
        "figure",
        "value (95 %)",
        "items",
        *(["reference", "worse by (95 %)"] if bias["reference"] else []),
        "said",
    ]
    verdict = f": {bias['verdict']} at --max-bias-shift {bias['max_shift']}" if "verdict" in bias else ""
    return [(f"bias{verdict}", [*header, *(["verdict"] if verdict else [])], rows)]


def _with_interval(row: dict[str, Any], name: str) -> str:
    low, high = row[f"{name}_interval"]
    return f"{row[name]:.3f} ({low:.3f} to {high:.3f})"


def _gate(audit: Audit, most: float) -> None:
    """Raise VerificationError if the audit fails; say on stderr what it leaves open."""
    by = {
        verdict: [found.name for found in audit.findings if found.verdict(most) == verdict]
        for verdict in ("fail", "open")
    }
    if by["fail"]:
        raise VerificationError(
            f"{audit.model} is further from neutral than {audit.reference} by more than {most}:"
            f" {', '.join(by['fail'])}"
        )
    if by["open"]:
        typer.echo(f"note: too few items to rule out more than {most}: {', '.join(by['open'])}", err=True)
