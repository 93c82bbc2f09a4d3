"""Figures of tasks: their records, their choice, and paired differences."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import Maker

from secateur.measure.task_scores import CHOICES, WORDS, Metric, chosen, items_of, require_lm_eval, shift
from secateur.pipeline.evaluate.tasks import evaluate_tasks
from secateur_runtime.errors import MissingExtraError, UsageError

TASKS = ["arc_easy", "openbookqa", "lambada_openai", "wikitext"]


def test_kinds_are_told_apart_and_figures_become_records(tiny: Maker, mirror: Path) -> None:
    found = evaluate_tasks(str(tiny("llama")), TASKS, datasets=mirror, limit=3)
    assert [score.kind for score in found.scores] == [CHOICES, CHOICES, WORDS, WORDS]
    records = {record.name: record for record in found.records()}
    assert {"arc_easy/acc", "arc_easy/acc_norm", "wikitext/word_perplexity"} <= set(records)
    assert records["arc_easy/acc"].value == found["arc_easy"]["acc"].value
    assert records["arc_easy/acc"].standard_error == found["arc_easy"]["acc"].error
    assert "the first 3 of 6 items" in records["arc_easy/acc"].protocol
    assert records["arc_easy/acc"].model.startswith("sha256:")
    assert len(found["arc_easy"]["acc"].items) == 3
    assert (found["wikitext"]["word_perplexity"].items, found["wikitext"]["word_perplexity"].error) == (
        (),
        None,
    )


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"^--tasks needs lm-eval: pip install 'secateur\[eval\]'$"):
        require_lm_eval("--tasks")


def test_an_unknown_metric_has_a_nearest_name(tiny: Maker, mirror: Path) -> None:
    scores = evaluate_tasks(str(tiny("llama")), ["arc_easy", "openbookqa"], datasets=mirror, limit=2).scores
    assert {task: [metric.name for metric in found] for task, found in chosen(scores, ["acc"]).items()} == {
        "arc_easy": ["acc"],
        "openbookqa": ["acc"],
    }
    with pytest.raises(UsageError, match=r"unknown metric 'acc_nrm' \(did you mean acc_norm\?\)"):
        chosen(scores, ["acc_nrm"])
    with pytest.raises(UsageError, match=r"arc_easy has no metric 'ac'"):
        scores[0]["ac"]


def test_a_shift_is_paired() -> None:
    """Differences 1, 0, 0, -1: the deviation of the pairs, not of the two means apart."""
    ours, theirs = (
        Metric("acc", sum(items) / 4, 0.25, True, items)
        for items in ((1.0, 1.0, 0.0, 0.0), (0.0, 1.0, 0.0, 1.0))
    )
    found = shift(ours, theirs)
    assert found.value == 0
    assert found.error == pytest.approx((2 / 3) ** 0.5 / 2)
    assert found.within_noise
    assert shift(ours, Metric("acc", 0.5, 0.25, True)).within_noise is None


def test_items_are_those_whose_mean_is_the_figure() -> None:
    samples: list[dict[str, object]] = [{"acc": 1.0}, {"acc": 0}, {"acc": 1}]
    assert items_of(samples, "acc", 2 / 3) == (1.0, 0.0, 1.0)
    assert items_of(samples, "acc", 0.5) == (), "a figure that is no mean of them"
    assert items_of([*samples, {}], "acc", 0.5) == (), "an item without the figure"
    assert items_of([], "acc", 0.0) == ()
