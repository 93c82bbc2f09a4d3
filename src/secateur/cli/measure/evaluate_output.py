"""What `secateur eval` prints: figures as a JSON object, or as tables; and the gate on bias."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from secateur.cli.shared import printing
from secateur_runtime.errors import UncheckedError, VerificationError

if TYPE_CHECKING:
    from secateur.measure.perplexity import Quality
    from secateur.pipeline.evaluate.bias_audit import Audit
    from secateur.pipeline.evaluate.tasks import TaskResult

_INCOMPARABLE = ("kl", "agreement", "next_token_accuracy", "per_token_of")
"""Figures that are none where model and reference read other tokens."""

_ACROSS = (
    "figures are per token of the latter, and divergence, agreement and accuracy, which compare single"
    " tokens, are left out"
)

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""Title, header, rows."""


def quality_body(quality: Quality, reference: str | None) -> dict[str, Any]:
    """Return how well a model predicts text; its divergence where there is a reference."""
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


def task_body(scored: Sequence[TaskResult], metrics: Sequence[str]) -> dict[str, Any]:
    """Return the scores of a model, and those of its reference where there is one."""
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


def bias_body(audit: Audit, most: float | None) -> dict[str, Any]:
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


def print_evaluation(body: dict[str, Any], *, as_json: bool) -> None:
    """Print what was measured, as one JSON object or as tables."""
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


def _task_tables(tasks: dict[str, Any]) -> list[Table]:
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


def _bias_table(bias: dict[str, Any] | None) -> list[Table]:
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


def gate(audit: Audit, most: float) -> None:
    """Raise VerificationError if the audit fails, UncheckedError for what it leaves open."""
    by = {
        verdict: [found.name for found in audit.findings if found.verdict(most) == verdict]
        for verdict in ("fail", "open")
    }
    if by["fail"]:
        raise VerificationError(
            f"{audit.model} is further from neutral than {audit.reference} by more than {most}:"
            f" {', '.join(by['fail'])}"
        )
    if audit.verdict(most) == "open":
        raise UncheckedError(
            f"too few items to rule out more than {most}: {', '.join(by['open']) or 'every figure'}; raise"
            " --limit, or leave it out"
        )
