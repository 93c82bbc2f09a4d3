"""Tasks and the audit of bias for one row, compared item by item with the answers of the whole model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur.measure.social_bias import FEWEST, Finding, Interval, Series
from secateur.measure.task_scores import Metric, TaskScore, require_lm_eval, shift
from secateur.measure.winogender import read_winogender
from secateur.pipeline.compare.protocol import Protocol
from secateur.pipeline.evaluate.bias_audit import CROWS, Answers, audited, bias_answers
from secateur.pipeline.evaluate.tasks import evaluate_tasks
from secateur.present.comparison_folder import write_json
from secateur_runtime.errors import RecordError
from secateur_runtime.record import Record

if TYPE_CHECKING:
    from secateur.pipeline.compare.row import RowSpec

_NATIVE = "runs in the native backend alone, which is asked no tasks and not audited"
TASKS = "task-answers.json"
BIAS = "bias-answers.json"
"""Files next to the parts of a row: its answer to each item, for the comparison item by item."""


def check_asked(protocol: Protocol) -> None:
    """Raise early what would stop every row: an unknown task, missing data, a missing package."""
    if not (protocol.tasks or protocol.bias):
        return
    require_lm_eval("--tasks" if protocol.tasks else "--bias")
    from secateur.measure.lm_eval_tasks import load_tasks

    load_tasks(
        [*protocol.tasks, *([CROWS] if protocol.bias else [])],
        Path(protocol.datasets) if protocol.datasets else None,
    )
    if protocol.winogender:
        read_winogender(Path(protocol.winogender))


def score_tasks(work: RowSpec) -> None:
    """Write the part `tasks`: figures called `KIND/TASK/METRIC`.

    `.../shift` is the difference from the whole model's answers to the same items.
    """
    _write(work, "tasks", _task_records)


def audit(work: RowSpec) -> None:
    """Write the part `bias`: figures as the audit calls them.

    `.../worse`, `/low` and `/high` say how much further from neutral each is than the whole model's.
    """
    _write(work, "bias", _bias_records)


def _write(work: RowSpec, part: str, records: Callable[[RowSpec], Iterator[Record]]) -> None:
    if work.row.native:
        work.write(part, notes=(_NATIVE,))
    else:
        work.write(part, *records(work))


def _task_records(work: RowSpec) -> Iterator[Record]:
    protocol = work.protocol
    tasked = evaluate_tasks(
        work.model, protocol.tasks, limit=protocol.limit, shots=protocol.shots, **_options(work)
    )
    answers = {
        f"{score.task}/{metric.name}": {"value": metric.value, "items": metric.items}
        for score in tasked.scores
        for metric in score.metrics
    }
    write_json(work.place / TASKS, answers)
    whole = _of_whole(work, TASKS)
    for score in tasked.scores:
        yield from _scores(work, score, whole)


def _bias_records(work: RowSpec) -> Iterator[Record]:
    protocol = work.protocol
    ours = bias_answers(
        work.model, winogender=protocol.winogender or None, limit=protocol.bias_limit, **_options(work)
    )
    write_json(work.place / BIAS, {name: asdict(series) for name, series in ours.series.items()})
    for finding in audited(ours, _answers(_of_whole(work, BIAS))).findings:
        yield from _finding(work, finding, ours.protocol)


def _options(work: RowSpec) -> dict[str, Any]:
    """Return the arguments that `evaluate_tasks` and `bias_answers` share."""
    protocol = work.protocol
    return {"datasets": protocol.datasets or None, "compute": protocol.compute, "progress": work.progress}


def _scores(work: RowSpec, score: TaskScore, whole: Mapping[str, Any] | None) -> Iterator[Record]:
    for metric, record in zip(score.metrics, score.records(work.job.digest), strict=True):
        name = f"{score.kind}/{score.task}/{metric.name}"
        yield work.record(name, metric.value, "", record.protocol, metric.error)
        theirs = whole and whole.get(f"{score.task}/{metric.name}")
        if theirs:
            moved = shift(
                metric, Metric(metric.name, float(theirs["value"]), None, True, tuple(theirs["items"]))
            )
            yield work.record(
                f"{name}/shift",
                moved.value,
                "",
                f"{record.protocol}; item by item from the whole model's",
                moved.error,
            )


def _finding(work: RowSpec, found: Finding, protocol: str) -> Iterator[Record]:
    plain = found.record(work.job.digest, "", protocol)
    yield work.record(found.name, plain.value, plain.unit, protocol, plain.standard_error)
    if found.worse and found.independent >= FEWEST:
        words = (
            f"{protocol}; how much further from neutral than the whole model on the same items, 95 %"
            f" bootstrap interval over {found.independent} of them"
        )
        for end, value in _ends(found.worse):
            yield work.record(f"{found.name}/worse{end}", value, plain.unit, words)


def _ends(interval: Interval) -> tuple[tuple[str, float], ...]:
    return ("", interval.value), ("/low", interval.low), ("/high", interval.high)


def _of_whole(work: RowSpec, name: str) -> dict[str, Any] | None:
    """Return the whole model's answers from the file `name`.

    None for the whole model itself, and where it has no answers.
    """
    path = work.whole.place / name
    if work.row == work.whole.row or not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RecordError(
            f"{path} is cut short or damaged ({error}): delete the folder {path.parent}, and `secateur"
            " compare` measures it again"
        ) from None


def _answers(body: dict[str, Any] | None) -> Answers | None:
    if body is None:
        return None
    try:
        series = {
            name: Series(tuple(one["values"]), tuple(one["clusters"]), one["unit"], one["neutral"])
            for name, one in body.items()
        }
    except (KeyError, TypeError) as error:
        raise RecordError(
            f"the whole model's {BIAS} is damaged ({error}): delete its folder, and `secateur compare`"
            " measures it again"
        ) from None
    return Answers("the whole model", "", "", "", series)
