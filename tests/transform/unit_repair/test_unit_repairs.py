"""What every repair of units must do, and how their errors are ordered."""

from __future__ import annotations

import pytest
import torch
from tests.problems import make_problem, make_stats
from tests.transform.unit_repair.problems import case, errors

from secateur.transform.unit_repair import UNIT_REPAIRS, CutLinear, bias_for
from secateur_runtime.errors import UsageError


def test_errors_are_ordered() -> None:
    for seed in range(5):
        inputs, cut = case(seed=seed)
        found = {name: errors(inputs, cut, name) for name in UNIT_REPAIRS}
        through_origin = errors(inputs, case(seed=seed, biased=False)[1], "affine")
        assert bool((found["bias"] <= found["none"] + 1e-9).all())
        assert bool((found["affine"] <= found["bias"] * (1 + 1e-6)).all())
        assert bool((found["affine"] <= through_origin * (1 + 1e-6)).all())
        assert bool((through_origin <= found["none"] * (1 + 1e-6)).all())
        assert float(found["lsq"].sum()) < float(found["none"].sum())


def test_an_unknown_repair_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown repair of units 'obs'.*known: affine, bias, lsq, none"):
        bias_for("obs")


@pytest.mark.parametrize("name", list(UNIT_REPAIRS))
class TestUnitRepair:
    def test_removed_inputs_are_zero_and_nothing_else_is_touched(self, name: str) -> None:
        weight, stats = make_problem(5, 24)
        before, gram = weight.clone(), stats.gram
        assert gram is not None
        moments = (gram.clone(), stats.input_mean.clone())
        kept = torch.arange(0, 24, 2)
        done = UNIT_REPAIRS[name].function(CutLinear(weight, stats, kept, True))
        assert done.weight.dtype == torch.float32
        assert int(done.weight[:, 1::2].count_nonzero()) == 0
        assert bool((done.weight[:, kept] != 0).all())
        assert (done.shift is not None) is (bias_for(name) != "none")
        assert done.shift is None or (done.shift.shape == (5,) and done.shift.dtype == torch.float32)
        assert torch.equal(weight, before)
        assert torch.equal(gram, moments[0])
        assert torch.equal(stats.input_mean, moments[1])

    @pytest.mark.parametrize("biased", [True, False])
    def test_finite_on_dead_inputs(self, name: str, biased: bool) -> None:
        if bias_for(name) == "must" and not biased:
            return
        weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
        done = UNIT_REPAIRS[name].function(
            CutLinear(weight, make_stats(torch.zeros(9, 6)), torch.tensor([1, 4]), biased)
        )
        assert bool(done.weight.isfinite().all())
        assert done.shift is None or bool(done.shift.isfinite().all())

    def test_keeping_everything_changes_nothing(self, name: str) -> None:
        weight, stats = make_problem(5, 24)
        done = UNIT_REPAIRS[name].function(CutLinear(weight, stats, torch.arange(24), True))
        assert name == "lsq" or bool(torch.isclose(done.weight, weight, rtol=1e-4, atol=1e-4).all())
        assert done.shift is None or float(done.shift.abs().max()) < 1e-3

    def test_is_documented(self, name: str) -> None:
        assert UNIT_REPAIRS[name].summary
