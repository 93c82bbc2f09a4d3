"""What a row is asked: tasks of lm-eval and the audit of bias, beside what the whole model answered to the same items."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
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
"""Files beside the parts of a row: its answer to each item, so that another row can be compared item by item.
"""


def check_asked(protocol: Protocol) -> None:
    """Raise now what would stop every row: an unknown task, data that is not there, a missing package."""
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
    """Write the part `tasks`: figures called `KIND/TASK/METRIC`, and `.../shift` for how far each is from the whole model's."""
    protocol = work.protocol
    if work.row.native:
        work.write("tasks", notes=(_NATIVE,))
        return
    tasked = evaluate_tasks(
        work.model,
        protocol.tasks,
        limit=protocol.limit,
        shots=protocol.shots,
        datasets=protocol.datasets or None,
        compute=protocol.compute,
        progress=work.progress,
    )
    answers = {
        f"{score.task}/{metric.name}": {"value": metric.value, "items": metric.items}
        for score in tasked.scores
        for metric in score.metrics
    }
    write_json(work.place / TASKS, answers)
    work.write(
        "tasks",
        *(record for score in tasked.scores for record in _scores(work, score, _of_whole(work, TASKS))),
    )


def audit(work: RowSpec) -> None:
    """Write the part `bias`: figures as the audit calls them, and `.../worse`, `/low`, `/high` for how much further from neutral each is."""
    protocol = work.protocol
    if work.row.native:
        work.write("bias", notes=(_NATIVE,))
        return
    ours = bias_answers(
        work.model,
        winogender=protocol.winogender or None,
        limit=protocol.bias_limit,
        datasets=protocol.datasets or None,
        compute=protocol.compute,
        progress=work.progress,
    )
    write_json(work.place / BIAS, {name: asdict(series) for name, series in ours.series.items()})
    found = audited(ours, _answers(_of_whole(work, BIAS)))
    work.write(
        "bias", *(record for finding in found.findings for record in _finding(work, finding, ours.protocol))
    )


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
    """Return what the whole model answered.

    None for the whole model itself, and where it could not be asked.
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
