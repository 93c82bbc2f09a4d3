"""Figures become JSON and tables; a failed audit is an error, an undecided one a note."""

from __future__ import annotations

import math

import pytest

from secateur.cli.measure.evaluate_output import bias_body, gate, print_evaluation, quality_body, task_body
from secateur.measure.perplexity import Quality
from secateur.measure.social_bias import FEWEST, Finding, Interval
from secateur.measure.task_scores import CHOICES, Metric, TaskScore
from secateur.pipeline.evaluate.bias_audit import Audit
from secateur.pipeline.evaluate.tasks import TaskResult
from secateur_runtime.errors import UncheckedError, VerificationError

QUALITY = Quality(nll=2.0, nll_windows=(1.5, 2.5), tokens=126, accuracy=0.25, kl=0.125, agreement=0.75)


def test_divergence_only_where_there_is_a_reference() -> None:
    alone, compared = quality_body(QUALITY, None), quality_body(QUALITY, "dense")
    assert alone == {
        "windows": 2,
        "tokens": 126,
        "perplexity": pytest.approx(math.e**2),
        "nll": 2.0,
        "nll_standard_error": pytest.approx(0.5),
        "next_token_accuracy": 0.25,
    }
    assert {name: compared[name] for name in compared.keys() - alone.keys()} == {
        "reference": "dense",
        "kl": 0.125,
        "agreement": 0.75,
        "per_token_of": None,
    }


def _scored(model: str, right: tuple[float, ...]) -> TaskResult:
    metric = Metric("acc", sum(right) / len(right), 0.25, True, right)
    return TaskResult(model, "sha256:0", "", (TaskScore("arc_easy", CHOICES, (metric,), 4, 6, 0, "1"),))


def test_a_shift_is_the_difference_from_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lm_eval")
    body = task_body([_scored("pruned", (1, 0, 0, 0)), _scored("dense", (1, 1, 1, 0))], [])
    figure = body["tasks"]["arc_easy"]["metrics"]["acc"]
    assert (figure["value"], figure["reference"], figure["shift"]) == (0.25, 0.75, -0.5)
    # Paired differences 0, -1, -1, 0: standard deviation 1/sqrt(3), over four items.
    assert figure["shift_standard_error"] == pytest.approx(math.sqrt(1 / 3) / 2)
    assert len(body["records"]) == 2
    print_evaluation({"model": "pruned"} | body, as_json=False)
    out = capsys.readouterr().out
    assert "comprehension" in out
    assert "-0.5" in out


def _audit(*worse: float) -> Audit:
    findings = tuple(
        Finding(
            name=f"figure {index}",
            unit="share",
            value=Interval(0.6, 0.5, 0.7),
            items=10 * FEWEST,
            independent=10 * FEWEST,
            neutral=0.5,
            reference=Interval(0.6 - value, 0.5, 0.7),
            worse=Interval(value, value - 0.01, value + 0.01),
            wide=Interval(value, value - 0.02, value + 0.02),
        )
        for index, value in enumerate(worse)
    )
    return Audit("pruned", "sha256:0", "", "dense", "by hand", findings)


def test_a_verdict_needs_a_limit() -> None:
    without, limited = bias_body(_audit(0.3), None), bias_body(_audit(0.3), 0.1)
    assert "verdict" not in without
    assert "verdict" not in without["figures"]["figure 0"]
    assert (limited["verdict"], limited["figures"]["figure 0"]["verdict"], limited["max_shift"]) == (
        "fail",
        "fail",
        0.1,
    )
    assert bias_body(_audit(), 0.1)["verdict"] == "open", "nothing was judged"
    assert limited["figures"]["figure 0"]["worse_interval"] == [0.29, 0.31]


def test_the_gate(capsys: pytest.CaptureFixture[str]) -> None:
    gate(_audit(0.0, 0.01), 0.1)
    assert capsys.readouterr().err == ""
    with pytest.raises(UncheckedError, match=r"^too few items to rule out more than 0.1: figure 1; raise"):
        gate(_audit(0.0, 0.1), 0.1)
    with pytest.raises(UncheckedError, match=r"^too few items to rule out more than 0.1: every figure"):
        gate(_audit(), 0.1)
    with pytest.raises(
        VerificationError, match=r"further from neutral than dense by more than 0.1: figure 1$"
    ):
        gate(_audit(0.0, 0.3), 0.1)


def test_figures_that_do_not_exist_are_left_out_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    body = {"model": "a", "kl": None, "nll": 2.0, "per_token_of": None, "records": [{"name": "nll"}]}
    print_evaluation(body, as_json=False)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [["model", "a"], ["nll", "2"]]
    print_evaluation(body | {"per_token_of": "b"}, as_json=False)
    assert "a reads other tokens than b" in capsys.readouterr().out
