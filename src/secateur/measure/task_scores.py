"""Scores of tasks, as lm-eval makes them."""

from __future__ import annotations

import importlib.util
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from secateur_runtime.errors import MissingExtraError, UsageError, nearest
from secateur_runtime.record import Record

WORDS = "word prediction"
CHOICES = "comprehension"
OTHER = "other"
"""Kinds of tasks. Word prediction: what comes next in a text, out of the whole vocabulary. Comprehension:
which of a few given answers is right. Pruning hurts them differently, so they are never averaged together."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a task.

    error: standard error, `None` where lm-eval knows none. items: the figure of each item, where it is their
    mean.
    """

    name: str
    value: float
    error: float | None
    higher_is_better: bool
    items: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskScore:
    """Figures of one task, or of a group of tasks.

    kind: of `WORDS`, `CHOICES`, `OTHER`. items, available: how many items were asked, and how many there are.
    shots: solved examples before each item. version: of lm-eval's definition.
    """

    task: str
    kind: str
    metrics: tuple[Metric, ...]
    items: int
    available: int
    shots: int
    version: str

    def __getitem__(self, metric: str) -> Metric:
        for found in self.metrics:
            if found.name == metric:
                return found
        names = [found.name for found in self.metrics]
        raise UsageError(
            f"{self.task} has no metric {metric!r}{nearest(metric, names)}; it has {', '.join(names)}"
        )

    def records(self, model: str, plan: str = "") -> list[Record]:
        """Return every figure as a record of the model with this digest; names are `TASK/METRIC`."""
        protocol = (
            f"lm-eval {importlib.metadata.version('lm_eval')}, {self.task} version {self.version},"
            f" {self.shots}-shot, "
        )
        protocol += (
            f"{'all' if self.items == self.available else f'the first {self.items} of'} {self.available}"
            " items, float32 logits"
        )
        return [
            Record(
                name=f"{self.task}/{metric.name}",
                value=metric.value,
                unit="",
                protocol=protocol,
                model=model,
                plan=plan,
                standard_error=metric.error,
            )
            for metric in self.metrics
        ]


@dataclass(frozen=True, slots=True)
class Shift:
    """How much a figure differs from a reference's on the same items.

    `error`: standard error of the paired difference.
    """

    value: float
    error: float | None

    @property
    def within_noise(self) -> bool | None:
        """Whether zero lies within the 95 % interval; `None` where that cannot be told."""
        return None if self.error is None else abs(self.value) <= 1.96 * self.error


def shift(ours: Metric, theirs: Metric) -> Shift:
    """Return the paired difference of a figure from that of a reference."""
    value = ours.value - theirs.value
    if len(ours.items) < 2 or len(ours.items) != len(theirs.items):
        return Shift(value, None)
    differences = [left - right for left, right in zip(ours.items, theirs.items, strict=True)]
    return Shift(value, statistics.stdev(differences) / math.sqrt(len(differences)))


def chosen(scores: Sequence[TaskScore], names: Sequence[str]) -> dict[str, list[Metric]]:
    """Return the metrics called `names` (all if none is named) of each task that has one.

    Raises UsageError for one that no task has.
    """
    known = sorted({metric.name for score in scores for metric in score.metrics})
    for name in names:
        if name not in known:
            raise UsageError(
                f"unknown metric {name!r}{nearest(name, known)}; these tasks have {', '.join(known)}"
            )
    return {
        score.task: [metric for metric in score.metrics if not names or metric.name in names]
        for score in scores
    }


def require_lm_eval(purpose: str) -> None:
    """Raise MissingExtraError unless lm-eval is installed."""
    if importlib.util.find_spec("lm_eval") is None:
        raise MissingExtraError(f"{purpose} needs lm-eval: pip install 'secateur[eval]'")


def items_of(samples: Sequence[Mapping[str, object]], metric: str, value: float) -> tuple[float, ...]:
    """Return the figure of each sample where the metric is their mean, and nothing otherwise."""
    found = tuple(
        float(number) for sample in samples if isinstance(number := sample.get(metric), int | float)
    )
    whole = len(found) == len(samples) > 0 and math.isclose(
        statistics.fmean(found), value, rel_tol=1e-9, abs_tol=1e-12
    )
    return found if whole else ()
