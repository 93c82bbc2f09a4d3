"""Named methods: their parts, how parts are replaced, and how a plan records them."""

from __future__ import annotations

import pytest

from secateur.core.execution import Execution
from secateur.criteria import CRITERIA
from secateur.pipeline.prune.weights.methods import (
    AUTO,
    METHODS,
    WeightMethod,
    method_named,
    method_of,
    weight_methods,
)
from secateur.transform.repair import REPAIRS
from secateur_runtime.errors import UsageError


@pytest.mark.parametrize("name", weight_methods())
def test_every_row_names_parts_that_exist(name: str) -> None:
    method = method_named(name)
    assert method.solver is REPAIRS[method.repair].function
    if method.criterion is None:
        assert method.scorer is None
        assert method.needs == REPAIRS[method.repair].needs
    else:
        assert method.scorer is CRITERIA[method.criterion].function
        assert method.needs == REPAIRS[method.repair].needs | CRITERIA[method.criterion].needs


@pytest.mark.parametrize("name", weight_methods())
def test_a_plan_records_a_method_and_gives_it_back(name: str) -> None:
    method = method_named(name)
    found = method_of(method.execution(rotation="", calibration=None, seed=0))
    assert (found.criterion, found.repair, found.scope) == (method.criterion, method.repair, method.scope)


def test_a_plan_that_names_nothing_prunes_without_criterion_or_repair() -> None:
    assert method_of(Execution()) == WeightMethod(None, "none", "row")


def test_every_criterion_is_a_method_in_its_own_scope_without_a_repair() -> None:
    assert set(weight_methods()) == {*CRITERIA, *METHODS}
    assert method_named("wanda") == WeightMethod("wanda", "none", "row")
    assert method_named("ria") == WeightMethod("ria", "none", "tensor")


def test_auto_is_the_best_row() -> None:
    assert method_named("auto") is METHODS[AUTO]


def test_replaced_parts_and_their_scope() -> None:
    wanda = method_named("wanda")
    assert wanda.replaced(None, None, None) == wanda
    assert wanda.replaced(None, "lsq", "tensor") == WeightMethod("wanda", "lsq", "tensor")
    # Another criterion brings the scope it is made for, unless one is given.
    assert wanda.replaced("magnitude", None, None).scope == "tensor"
    assert wanda.replaced("magnitude", None, "row").scope == "row"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("wonda", None, None), r"did you mean wanda\?"),
        ((None, "lqs", None), r"did you mean lsq\?"),
        ((None, None, "rows"), r"unknown scope 'rows' \(did you mean row\?\); known: row, tensor"),
    ],
)
def test_unknown_parts_are_one_line(parts: tuple[str | None, str | None, str | None], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        method_named("wanda").replaced(*parts)


def test_an_unknown_method_is_one_line() -> None:
    with pytest.raises(UsageError, match=r"unknown method 'wonda' \(did you mean wanda\?\); known: auto, "):
        method_named("wonda")
