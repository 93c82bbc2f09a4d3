"""What every registered criterion and repair must do, tested before its author does."""

from __future__ import annotations

import pytest
import torch
from tests.problems import make_problem, make_stats
from torch import Tensor

from secateur.core.pattern import Pattern, Scope
from secateur.core.stats import LinearStats
from secateur.criteria import CRITERIA, default_scope
from secateur.transform.mask import Scorer, choose_mask
from secateur.transform.repair import REPAIRS

RATIOS = ("0", "0.5", "0.3")
GROUPED = ("2:4", "4:8", "8:16")
SELF_CHOOSING = ("obs", "admm")
SOLVERS = [(repair, name) for repair in REPAIRS for name in (None, "random", "wanda") if name or repair in SELF_CHOOSING]
PAIRS = [(repair, name) for repair in REPAIRS for name in CRITERIA]


def scorer_of(name: str | None) -> Scorer | None:
    return CRITERIA[name].function if name else None


def copy_of(stats: LinearStats) -> list[Tensor]:
    return [value.clone() for value in (stats.input_sq, stats.input_mean, stats.gram) if value is not None]


def assert_meets(weight: Tensor, pattern: Pattern) -> None:
    """Assert that no group holds more survivors than the pattern allows, and that the total is exact for a ratio."""
    if pattern.m:
        assert int((weight.reshape(-1, pattern.m) != 0).sum(1).max()) <= pattern.n
    assert int((weight != 0).sum()) == pattern.kept(weight.numel())


@pytest.mark.parametrize("name", list(CRITERIA))
class TestCriterion:
    def test_shape_type_and_range(self, name: str) -> None:
        weight, stats = make_problem(7, 12)
        saliency = CRITERIA[name].function(weight, stats)
        assert saliency.shape == weight.shape
        assert saliency.dtype == weight.dtype
        assert bool(saliency.isfinite().all())
        assert bool((saliency >= 0).all())

    def test_is_pure(self, name: str) -> None:
        weight, stats = make_problem(7, 12)
        before, moments = weight.clone(), copy_of(stats)
        first = CRITERIA[name].function(weight, stats)
        assert torch.equal(first, CRITERIA[name].function(weight, stats))
        assert torch.equal(weight, before)
        assert all(torch.equal(a, b) for a, b in zip(moments, copy_of(stats), strict=True))

    def test_finite_on_degenerate_inputs(self, name: str) -> None:
        function = CRITERIA[name].function
        dead = make_stats(torch.zeros(9, 6))
        assert bool(function(torch.randn(4, 6), dead).isfinite().all())
        assert bool(function(torch.zeros(4, 6), make_problem(4, 6)[1]).isfinite().all())

    def test_is_documented(self, name: str) -> None:
        assert CRITERIA[name].summary
        assert default_scope(name) in ("row", "tensor")

    @pytest.mark.parametrize("scope", ["row", "tensor"])
    @pytest.mark.parametrize("text", RATIOS)
    def test_constant_weights_do_not_overshoot(self, name: str, scope: Scope, text: str) -> None:
        pattern = Pattern.parse(text)
        _, stats = make_problem(4, 10)
        mask = choose_mask(CRITERIA[name].function(torch.ones(5, 10), stats), pattern, scope)
        assert int(mask.sum()) == pattern.kept(50)


@pytest.mark.parametrize(("repair", "name"), SOLVERS)
class TestRepair:
    @pytest.mark.parametrize("scope", ["row", "tensor"])
    @pytest.mark.parametrize("text", RATIOS + GROUPED)
    def test_meets_the_pattern(self, repair: str, name: str | None, scope: Scope, text: str) -> None:
        pattern = Pattern.parse(text)
        weight, stats = make_problem(11, 48)
        result = REPAIRS[repair].function(weight, stats, pattern, scorer_of(name), scope)
        assert result.shape == weight.shape
        assert result.dtype == torch.float32
        assert bool(result.isfinite().all())
        assert_meets(result, pattern)

    @pytest.mark.parametrize("shape", [(1, 1), (3, 5), (7, 1), (1, 9), (130, 131)])
    def test_odd_shapes_are_within_a_thousandth(self, repair: str, name: str | None, shape: tuple[int, int]) -> None:
        weight, stats = make_problem(*shape)
        result = REPAIRS[repair].function(weight, stats, Pattern.parse("0.5"), scorer_of(name), "row")
        zeros = int((result == 0).sum())
        assert abs(zeros - weight.numel() / 2) <= max(0.5, weight.numel() / 1000)

    def test_is_pure(self, repair: str, name: str | None) -> None:
        weight, stats = make_problem(6, 16)
        before, moments = weight.clone(), copy_of(stats)
        solve = REPAIRS[repair].function
        first = solve(weight, stats, Pattern.parse("0.5"), scorer_of(name), "row")
        assert torch.equal(first, solve(weight, stats, Pattern.parse("0.5"), scorer_of(name), "row"))
        assert torch.equal(weight, before)
        assert all(torch.equal(a, b) for a, b in zip(moments, copy_of(stats), strict=True))

    @pytest.mark.parametrize("text", ["0.5", "2:4"])
    def test_degenerate_problems(self, repair: str, name: str | None, text: str) -> None:
        pattern = Pattern.parse(text)
        weight, stats = make_problem(6, 16)
        dead = make_stats(torch.zeros(9, 16))
        partly = make_stats(torch.randn(64, 16, generator=torch.Generator().manual_seed(1)) * (torch.arange(16) % 5 > 0))
        few = make_stats(torch.randn(3, 16, generator=torch.Generator().manual_seed(2)))
        holed = weight.clone()
        holed[2] = 0
        for case, moments in ((weight, dead), (weight, partly), (weight, few), (torch.ones(6, 16), stats), (holed, stats)):
            result = REPAIRS[repair].function(case, moments, pattern, scorer_of(name), "row")
            assert bool(result.isfinite().all())
            assert int((result != 0).sum()) <= pattern.kept(96)

    def test_keeping_everything_changes_nothing(self, repair: str, name: str | None) -> None:
        weight, stats = make_problem(6, 16)
        result = REPAIRS[repair].function(weight, stats, Pattern.parse("0"), scorer_of(name), "row")
        torch.testing.assert_close(result, weight, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("repair", "name"), PAIRS)
def test_every_criterion_works_with_every_repair(repair: str, name: str) -> None:
    weight, stats = make_problem(5, 16)
    for text in ("0.3", "2:4"):
        assert_meets(REPAIRS[repair].function(weight, stats, Pattern.parse(text), scorer_of(name), default_scope(name)), Pattern.parse(text))


@pytest.mark.parametrize("repair", list(REPAIRS))
def test_repair_is_documented(repair: str) -> None:
    assert REPAIRS[repair].summary
