"""Scores of tasks for one model, with the digests of its weights and of its plan."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.conftest import Maker

from secateur.core.plan import Plan
from secateur.measure.task_scores import Metric, TaskScore
from secateur.model.handle import open_model
from secateur.pipeline.evaluate.tasks import TaskResult, evaluate_tasks
from secateur_runtime.errors import MissingExtraError, UsageError

SCORE = TaskScore("arc_easy", "choices", (Metric("acc", 0.5, 0.1, higher_is_better=True),), 4, 10, 0, "1.0")


def test_a_task_is_found_by_name() -> None:
    result = TaskResult("m", "sha256:1", "", (SCORE,))
    assert result["arc_easy"] is SCORE
    with pytest.raises(UsageError, match="boolq was not measured; these were: arc_easy"):
        result["boolq"]


def test_records_carry_both_digests() -> None:
    pytest.importorskip("lm_eval")
    (record,) = TaskResult("m", "sha256:1", "sha256:2", (SCORE,)).records()
    assert (record.name, record.value) == ("arc_easy/acc", 0.5)
    assert (record.model, record.plan) == ("sha256:1", "sha256:2")


def test_the_plan_is_that_of_the_weights_however_they_are_named(
    tiny: Maker, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny("llama"), tmp_path / "model")
    plan = Plan(model="sha256:0", sparsity={"a": "0.50"})
    (tmp_path / "model" / "plan.json").write_text(plan.to_json())
    monkeypatch.setenv("HOME", str(tmp_path))
    found = evaluate_tasks("~/model", ["arc_easy"], datasets=mirror, limit=2)
    assert (found.model, found.plan) == ("~/model", plan.digest())
    assert found.digest == open_model(str(tiny("llama"))).digest
    assert found["arc_easy"].items == 2
    same = evaluate_tasks(str(tiny("llama")), ["arc_easy"], datasets=mirror, limit=2)
    assert same.plan == ""
    assert same.scores == found.scores


def test_without_lm_eval_the_package_is_named(tiny: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'secateur\[eval\]'"):
        evaluate_tasks(str(tiny("llama")), ["arc_easy"])
