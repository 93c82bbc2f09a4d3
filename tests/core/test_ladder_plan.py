"""Levels of a ladder as plans, worked out by hand, and ladders that do not fit a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from tests.conftest import Maker
from tests.ladders import EXAMPLE, ladder_for

from secateur.core.ladder_plan import check_ladder, plan_of_level, plan_of_units
from secateur.model.handle import open_model
from secateur_runtime.errors import LadderError


@pytest.mark.parametrize(
    ("level", "keep", "drop"),
    [
        (0, {}, set()),
        (1, {"1.ffn": (0, 1)}, set()),
        (2, {"1.ffn": (0, 1)}, {"1.attn"}),
        (3, {}, {"1.attn", "1.ffn"}),
        (4, {"0.kv": (1,)}, {"1.attn", "1.ffn"}),
    ],
)
def test_a_level_is_a_plan(level: int, keep: Mapping[str, tuple[int, ...]], drop: set[str]) -> None:
    plan = plan_of_level(EXAMPLE, level)
    assert plan.model == EXAMPLE.model
    assert plan.keep == keep
    assert set(plan.drop) == drop
    assert plan.made_by == {"units": "ladder", "target": f"level={level}"}


def test_units_are_listed_in_ascending_order() -> None:
    """The ladder ranks them otherwise: of `0.ffn` it retains 3, 1 and 0 first."""
    ladder = replace(EXAMPLE, rungs=(replace(EXAMPLE.rungs[0], unit="0.ffn:3"),))
    assert plan_of_level(ladder, 1).keep == {"0.ffn": (0, 1, 3)}


def test_steps_in_any_order_make_the_same_plan() -> None:
    forwards = plan_of_units(EXAMPLE, ["1.ffn:2", "1.attn", "0.kv:1"])
    assert forwards == plan_of_units(EXAMPLE, ["0.kv:1", "1.attn", "1.ffn:2"])
    assert "target" not in forwards.made_by


def test_steps_that_are_not_there_are_refused() -> None:
    with pytest.raises(LadderError, match=r"no step '1\.atn' \(did you mean 1\.attn\?\)"):
        plan_of_units(EXAMPLE, ["1.atn"])
    with pytest.raises(LadderError, match="no level 5"):
        plan_of_level(EXAMPLE, 5)


def test_a_plan_of_a_ladder_fits_its_model(tiny: Maker) -> None:
    model = open_model(str(tiny("llama")))
    ladder = ladder_for(model.graph, model.digest, ["1.attn", "1.ffn:32"])
    check_ladder(ladder, model.graph, model.digest)
    plan = plan_of_level(ladder, 2)
    plan.validate(model.graph, model.digest)
    assert (plan.keep, plan.drop) == ({"1.ffn": tuple(range(64, 96))}, ("1.attn",))


def test_a_ladder_of_another_model_is_refused_in_one_line(tiny: Maker) -> None:
    model = open_model(str(tiny("llama")))
    whole = ladder_for(model.graph, model.digest, [])
    fewer = {name: units for name, units in whole.order.items() if name != "1.ffn"}
    cases = {
        "was made for": replace(whole, model="sha256:" + "1" * 64),
        r"lacks '1\.ffn'": replace(whole, order=fewer),
        r"orders '9\.ffn', which this model does not have": replace(
            whole, order={**whole.order, "9.ffn": (0,)}
        ),
        r"orders 2 units of '1\.ffn', which has 96": replace(whole, order={**whole.order, "1.ffn": (0, 1)}),
    }
    for message, ladder in cases.items():
        with pytest.raises(LadderError, match=message) as caught:
            check_ladder(ladder, model.graph, model.digest)
        assert "\n" not in str(caught.value)
