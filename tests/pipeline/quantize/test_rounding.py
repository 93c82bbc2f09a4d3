"""Rounding of weights that share an input: alone or together, with and without zeros made on the way."""

from __future__ import annotations

import pytest
import torch
from tests.problems import make_problem

from secateur.core.execution import CalibrationText, Execution
from secateur.pipeline.quantize.rounding import rounding_named
from secateur.quantizers import QUANTIZERS
from secateur.transform.repair import REPAIRS
from secateur_runtime.errors import UsageError
from secateur_runtime.kernels.quantized import Grid

GRID = Grid(bits=4, group=16)


@pytest.mark.parametrize(
    ("method", "sparsity"), [("rtn", ""), ("gptq", ""), ("gptq", "2:4"), ("gptq", "0.5")]
)
def test_rounded_together_is_rounded_alone(method: str, sparsity: str) -> None:
    rounding = rounding_named(method, sparsity, "sparsegpt")
    first, stats = make_problem(6, 32)
    second = torch.randn(4, 32, generator=torch.Generator().manual_seed(9))
    before = [first.clone(), second.clone()]
    together = rounding([first, second], stats, GRID)
    assert torch.equal(first, before[0])
    assert torch.equal(second, before[1])
    for weight, codes in zip(before, together, strict=True):
        (alone,) = rounding([weight], stats, GRID)
        assert codes.dense().shape == weight.shape
        torch.testing.assert_close(codes.dense(), alone.dense())


@pytest.mark.parametrize("sparsity", ["2:4", "0.5"])
def test_zeros_are_those_of_the_pattern(sparsity: str) -> None:
    weight, stats = make_problem(6, 32)
    (codes,) = rounding_named("gptq", sparsity, "sparsegpt")([weight], stats, GRID)
    zeros = codes.dense() == 0
    assert float(zeros.float().mean()) >= 0.5
    if sparsity == "2:4":
        assert int(zeros.view(6, 8, 4).sum(-1).min()) >= 2


def test_what_is_read_is_what_both_need() -> None:
    assert rounding_named("rtn", "", "sparsegpt").needs == QUANTIZERS["rtn"].needs
    both = rounding_named("gptq", "0.5", "sparsegpt").needs
    assert both == QUANTIZERS["gptq"].needs | REPAIRS["obs"].needs


def test_a_plan_of_the_zeros_says_how_they_were_chosen() -> None:
    text = CalibrationText(text="builtin", samples=2, window=8, digest="sha256:0")
    assert rounding_named("gptq", "", "wanda").plan("sha256:1", ["a"], text, 3) is None
    plan = rounding_named("gptq", "2:4", "wanda").plan("sha256:1", ["a", "b"], text, 3)
    assert plan is not None
    assert plan.sparsity == {"a": "2:4", "b": "2:4"}
    assert plan.execution == Execution(criterion="wanda", scope="row", calibration=text, seed=3)
    assert plan.made_by == {
        "target": "2:4",
        "criterion": "wanda",
        "repair": "none",
        "scope": "row",
        "seed": "3",
        "calibration": "builtin",
        "samples": "2",
        "window": "8",
        "calibration_digest": "sha256:0",
    }


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("gtpq", "", ""), r"did you mean gptq\?"),
        (("rtn", "0.5", "wanda"), "only --method gptq can: prune first, then quantize with rtn"),
        (("gptq", "0.5", "wonda"), r"did you mean wanda\?"),
        (("gptq", "1.5", "wanda"), "outside"),
    ],
)
def test_what_cannot_work_is_one_line(names: tuple[str, str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        rounding_named(*names)
