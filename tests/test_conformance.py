"""What every registered criterion and repair must do, tested before its author does.

Allocations, spreads, quantizers, depth criteria, repairs of units and policies have such tests in their own
folders.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from tests.method_tables import PAGE, page
from tests.problems import GROUPS, make_problem, make_stats, make_view, reorder
from torch import Tensor

from secateur.cli.shared.method_lists import REGISTRIES, registry
from secateur.core.graph import Kind
from secateur.core.pattern import Pattern, Scope
from secateur.criteria import CRITERIA, default_scope
from secateur.criteria.units import ALL_KINDS, UNIT_CRITERIA, kinds_of, unit_criterion_for
from secateur.tensors.stats import LinearStats
from secateur.tensors.unit_view import UnitView
from secateur.transform.mask import Scorer, choose_mask
from secateur.transform.repair import REPAIRS
from secateur.transform.unit_repair import bias_for
from secateur_runtime.errors import UsageError

SRC = Path(__file__).parents[1] / "src"
CONTRIBUTING = SRC.parent / "CONTRIBUTING.md"
RATIOS = ("0", "0.5", "0.3")
GROUPED = ("2:4", "4:8", "8:16")
UNLISTED = {"secateur.model.families", "secateur.pipeline.export.formats"}
"""Tables whose rows are not functions with docstrings.

A config says the family; formats and their types have words of their own, see `summaries`.
"""
SELF_CHOOSING = ("obs", "admm")
SOLVERS = [
    (repair, name)
    for repair in REPAIRS
    for name in (None, "random", "wanda")
    if name or repair in SELF_CHOOSING
]
PAIRS = [(repair, name) for repair in REPAIRS for name in CRITERIA]

UNIT_CASES = [
    (name, layout)
    for name in UNIT_CRITERIA
    for layout, group in GROUPS.items()
    if group.kind in kinds_of(name)
]
UNABLE: list[tuple[str, Kind]] = [
    (name, kind) for name in UNIT_CRITERIA for kind in ALL_KINDS if kind not in kinds_of(name)
]


def scorer_of(name: str | None) -> Scorer | None:
    return CRITERIA[name].function if name else None


def copy_of(stats: LinearStats) -> list[Tensor]:
    return [value.clone() for value in (stats.input_sq, stats.input_mean, stats.gram) if value is not None]


def assert_meets(weight: Tensor, pattern: Pattern) -> None:
    """Assert that no group has more survivors than the pattern allows, and that the total is exact."""
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


def test_the_registry_keeps_what_each_method_says_about_itself() -> None:
    assert default_scope("magnitude") == "tensor"
    assert default_scope("wanda") == "row"
    assert kinds_of("ppm") == {"ffn"}
    assert kinds_of("magnitude") == set(ALL_KINDS)
    assert [bias_for(name) for name in ("none", "affine", "bias")] == ["none", "may", "must"]
    for lookup in (default_scope, kinds_of, bias_for):
        with pytest.raises(UsageError, match=r"unknown .*'wandda'"):
            lookup("wandda")


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
    def test_odd_shapes_are_within_a_thousandth(
        self, repair: str, name: str | None, shape: tuple[int, int]
    ) -> None:
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
        partly = make_stats(
            torch.randn(64, 16, generator=torch.Generator().manual_seed(1)) * (torch.arange(16) % 5 > 0)
        )
        few = make_stats(torch.randn(3, 16, generator=torch.Generator().manual_seed(2)))
        holed = weight.clone()
        holed[2] = 0
        for case, moments in (
            (weight, dead),
            (weight, partly),
            (weight, few),
            (torch.ones(6, 16), stats),
            (holed, stats),
        ):
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
        assert_meets(
            REPAIRS[repair].function(
                weight, stats, Pattern.parse(text), scorer_of(name), default_scope(name)
            ),
            Pattern.parse(text),
        )


@pytest.mark.parametrize("repair", list(REPAIRS))
def test_repair_is_documented(repair: str) -> None:
    assert REPAIRS[repair].summary


@pytest.mark.parametrize(("name", "layout"), UNIT_CASES)
class TestUnitCriterion:
    def test_shape_type_and_range(self, name: str, layout: str) -> None:
        view = make_view(layout)
        scores = UNIT_CRITERIA[name].function(view)
        assert scores.shape == (view.group.size,)
        assert scores.dtype == torch.float32
        assert bool(scores.isfinite().all())
        assert len(scores.unique()) == view.group.size, "units that differ have the same score"

    def test_is_pure(self, name: str, layout: str) -> None:
        view, again = make_view(layout), make_view(layout)
        first = UNIT_CRITERIA[name].function(view)
        assert torch.equal(first, UNIT_CRITERIA[name].function(view))
        for before, after in ((again.weights, view.weights), (again.gradients, view.gradients)):
            assert all(torch.equal(before[key], after[key]) for key in before)
        for key, moments in again.stats.items():
            assert all(
                torch.equal(a, b) for a, b in zip(copy_of(moments), copy_of(view.stats[key]), strict=True)
            )

    def test_finite_on_degenerate_inputs(self, name: str, layout: str) -> None:
        view = make_view(layout)
        dead = {key: make_stats(torch.zeros(8, len(moments.input_sq))) for key, moments in view.stats.items()}
        holed = {key: weight.clone().zero_() for key, weight in view.weights.items()}
        for case in (
            UnitView(view.group, view.weights, dead, view.gradients),
            UnitView(view.group, holed, view.stats, view.gradients),
        ):
            assert bool(UNIT_CRITERIA[name].function(case).isfinite().all())


# `random` scores places, not what stands there
@pytest.mark.parametrize(("name", "layout"), [case for case in UNIT_CASES if case[0] != "random"])
def test_the_order_of_units_does_not_matter(name: str, layout: str) -> None:
    view = make_view(layout, seed=3)
    order = torch.randperm(view.group.size, generator=torch.Generator().manual_seed(5))
    scores = UNIT_CRITERIA[name].function
    torch.testing.assert_close(scores(reorder(view, order)), scores(view)[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "kind"), UNABLE)
def test_a_unit_criterion_refuses_other_kinds_and_names_those_that_work(name: str, kind: Kind) -> None:
    with pytest.raises(UsageError, match=rf"{name}.* cannot score {kind} units; these can: .*magnitude"):
        unit_criterion_for(name, kind)


@pytest.mark.parametrize("name", list(UNIT_CRITERIA))
def test_unit_criterion_is_documented(name: str) -> None:
    assert UNIT_CRITERIA[name].summary
    assert all(unit_criterion_for(name, kind).name == name for kind in kinds_of(name))


@pytest.mark.parametrize("word", REGISTRIES)
class TestRegistry:
    def test_names_and_summaries_are_read_without_an_import(self, word: str) -> None:
        """Help texts rely on it; a method that no decorator with its name enters is missed."""
        table = registry(word)
        assert table.summaries() == {name: row.summary for name, row in table.items()}

    def test_every_row_is_documented(self, word: str) -> None:
        assert all(row.summary for _, row in registry(word).items())

    def test_contributing_says_where_plug_ins_go(self, word: str) -> None:
        assert f"`{registry(word).group}` |" in CONTRIBUTING.read_text(encoding="utf-8")


def test_every_registry_is_in_the_help() -> None:
    known = {module.partition(":")[0] for module in REGISTRIES.values()}
    made = re.compile(r"^[A-Z_]+: (?:Registry|Table)\[.*= (?:Registry|Table)\(", re.MULTILINE)
    paths = [path for path in SRC.rglob("*.py") if made.search(path.read_text(encoding="utf-8"))]
    found = {
        ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__") for path in paths
    }
    assert found - UNLISTED == known, "give it a word in REGISTRIES of cli/shared/method_lists.py"


def test_the_page_of_methods_is_that_of_the_registries() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m tests.method_tables`"
