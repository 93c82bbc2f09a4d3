"""Every repair of units against what raw inputs give in float64."""

from __future__ import annotations

import pytest
import torch
from tests.problems import make_problem, make_stats
from torch import Tensor

from secateur.tensors.stats import LinearStats
from secateur.transform.unit_repair import UNIT_REPAIRS, CutLinear, Repaired, bias_for
from secateur_runtime.errors import SecateurError, UsageError

KEPT = torch.tensor([0, 2, 3, 7, 8])
GONE = torch.tensor([1, 4, 5, 6, 9])


def _case(*, biased: bool = True, seed: int = 0) -> tuple[Tensor, CutLinear]:
    """Return inputs whose means are far from 0, and a cut of a linear that reads them."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(400, 10, generator=generator) @ torch.randn(
        10, 10, generator=generator
    ) + 2 * torch.randn(10, generator=generator)
    weight = torch.randn(6, 10, generator=generator)
    return inputs, CutLinear(weight, make_stats(inputs), KEPT, biased)


def _outputs(inputs: Tensor, done: Repaired) -> Tensor:
    return inputs.double() @ done.weight.double().T + (0.0 if done.shift is None else done.shift.double())


def _errors(inputs: Tensor, cut: CutLinear, name: str) -> Tensor:
    """Return the mean squared error of every output."""
    return (
        (_outputs(inputs, UNIT_REPAIRS[name].function(cut)) - inputs.double() @ cut.weight.double().T)
        .square()
        .mean(0)
    )


def test_bias_is_the_mean_of_what_left() -> None:
    inputs, cut = _case()
    done = UNIT_REPAIRS["bias"].function(cut)
    expected = (inputs[:, GONE].double() @ cut.weight[:, GONE].double().T).mean(0)
    assert done.shift is not None
    torch.testing.assert_close(done.shift.double(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(done.weight[:, KEPT], cut.weight[:, KEPT])
    whole = inputs.double() @ cut.weight.double().T
    torch.testing.assert_close(_outputs(inputs, done).mean(0), whole.mean(0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("biased", [True, False])
def test_affine_is_the_least_squares_of_every_output(biased: bool) -> None:
    inputs, cut = _case(biased=biased)
    done = UNIT_REPAIRS["affine"].function(cut)
    whole = inputs.double() @ cut.weight.double().T
    left = inputs[:, KEPT].double() @ cut.weight[:, KEPT].double().T
    for row in range(6):
        columns = torch.stack([left[:, row], torch.ones(400, dtype=torch.float64)][: 1 + biased], 1)
        solution = torch.linalg.lstsq(columns, whole[:, row, None]).solution[:, 0]
        torch.testing.assert_close(
            done.weight[row, KEPT].double(),
            solution[0] * cut.weight[row, KEPT].double(),
            rtol=1e-4,
            atol=1e-5,
        )
        if biased:
            assert done.shift is not None
            torch.testing.assert_close(done.shift[row].double(), solution[1], rtol=1e-4, atol=1e-4)
    assert biased is (done.shift is not None)


def test_errors_are_ordered() -> None:
    for seed in range(5):
        inputs, cut = _case(seed=seed)
        errors = {name: _errors(inputs, cut, name) for name in UNIT_REPAIRS}
        through_origin = _errors(inputs, _case(seed=seed, biased=False)[1], "affine")
        assert bool((errors["bias"] <= errors["none"] + 1e-9).all())
        assert bool((errors["affine"] <= errors["bias"] * (1 + 1e-6)).all())
        assert bool((errors["affine"] <= through_origin * (1 + 1e-6)).all())
        assert bool((through_origin <= errors["none"] * (1 + 1e-6)).all())
        assert float(errors["lsq"].sum()) < float(errors["none"].sum())


def test_what_does_not_vary_is_only_shifted() -> None:
    """Constant inputs leave, silent ones stay, a row holds nothing but what leaves."""
    inputs, cut = _case()
    inputs[:, KEPT] = torch.tensor([1000.0, 3.0, 0.0, 0.1, -5.0])
    weight = cut.weight.clone()
    weight[2, KEPT] = 0
    still = CutLinear(weight, make_stats(inputs), KEPT, True)
    done, expected = UNIT_REPAIRS["affine"].function(still), UNIT_REPAIRS["bias"].function(still)
    assert expected.shift is not None
    torch.testing.assert_close(done, expected, rtol=1e-4, atol=1e-3)
    assert torch.equal(
        UNIT_REPAIRS["affine"].function(CutLinear(weight, make_stats(inputs), KEPT, False)).weight[2],
        torch.zeros(10),
    )


def test_what_is_missing_is_refused() -> None:
    _, cut = _case(biased=False)
    with pytest.raises(UsageError, match="cannot hold the bias that --repair bias adds: use --repair lsq"):
        UNIT_REPAIRS["bias"].function(cut)
    bare = LinearStats(cut.stats.tokens, cut.stats.input_sq, cut.stats.input_mean)
    for name in ("affine", "lsq"):
        with pytest.raises(SecateurError, match="needs the Gram matrix"):
            UNIT_REPAIRS[name].function(CutLinear(cut.weight, bare, KEPT, True))
    with pytest.raises(UsageError, match=r"unknown repair of units 'obs'.*known: affine, bias, lsq, none"):
        bias_for("obs")


@pytest.mark.parametrize("name", list(UNIT_REPAIRS))
class TestUnitRepair:
    def test_what_left_is_zero_and_nothing_else_is_touched(self, name: str) -> None:
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
