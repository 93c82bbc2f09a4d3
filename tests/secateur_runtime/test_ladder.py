"""The ladder: its levels, its file, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from tests.ladders import EXAMPLE, ladder_for

from secateur.core.ladder_plan import check_ladder, plan_of_level, plan_of_units
from secateur.model.handle import open_model
from secateur_runtime.errors import LadderError, OutputError


def test_levels_are_nested_plans() -> None:
    assert EXAMPLE.kept(0) == {"0.kv": 2, "0.ffn": 4, "1.kv": 2, "1.ffn": 4, "2.kv": 2, "2.ffn": 4}
    assert EXAMPLE.kept(3) == {"0.kv": 2, "0.ffn": 4, "1.kv": 0, "1.ffn": 0, "2.kv": 2, "2.ffn": 4}
    assert (plan_of_level(EXAMPLE, 0).keep, plan_of_level(EXAMPLE, 0).drop) == ({}, ())
    assert (plan_of_level(EXAMPLE, 1).keep, plan_of_level(EXAMPLE, 1).drop) == ({"1.ffn": (0, 1)}, ())
    assert (plan_of_level(EXAMPLE, 4).keep, set(plan_of_level(EXAMPLE, 4).drop)) == (
        {"0.kv": (1,)},
        {"1.attn", "1.ffn"},
    )
    assert plan_of_level(EXAMPLE, 4).model == EXAMPLE.model


def test_need() -> None:
    assert EXAMPLE.need(0, batch=2, tokens=10, kv_bytes=2) == 1000 + 48 * 2 * 2 * 10
    assert [EXAMPLE.need(level) for level in range(len(EXAMPLE))] == [
        rung.weight_bytes for rung in map(EXAMPLE.at, range(len(EXAMPLE)))
    ]
    assert [EXAMPLE.at(level).loss for level in range(len(EXAMPLE))] == [2.0, 2.05, 2.11, 2.3, 2.9]


@pytest.mark.parametrize("level", [-1, 5])
def test_a_level_that_is_not_there_is_one_line(level: int) -> None:
    for ask in (EXAMPLE.at, EXAMPLE.kept, partial(plan_of_level, EXAMPLE)):
        with pytest.raises(LadderError, match=r"levels 0 \(the whole model\) to 4"):
            ask(level)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        EXAMPLE.save(tmp_path / "none" / "ladder.json")


def test_a_ladder_must_be_made_for_its_model(tiny: Callable[..., Path]) -> None:
    model = open_model(str(tiny("llama")))
    ladder = ladder_for(model.graph, model.digest, ["1.attn", "1.ffn:32"])
    check_ladder(ladder, model.graph, model.digest)
    plan_of_level(ladder, 2).validate(model.graph, model.digest)
    with pytest.raises(LadderError, match="was made for"):
        check_ladder(ladder, model.graph, "sha256:" + "1" * 64)
    with pytest.raises(LadderError, match=r"orders 2 units of '1\.ffn', which has 96"):
        check_ladder(replace(ladder, order={**ladder.order, "1.ffn": (0, 1)}), model.graph, model.digest)
    with pytest.raises(LadderError, match=r"orders '7\.ffn'"):
        check_ladder(replace(ladder, order={**ladder.order, "7.ffn": (0, 1)}), model.graph, model.digest)
    with pytest.raises(LadderError, match=r"lacks '1\.ffn'"):
        order = {name: units for name, units in ladder.order.items() if name != "1.ffn"}
        check_ladder(replace(ladder, order=order, rungs=()), model.graph, model.digest)


def test_steps_may_be_taken_out_of_order_but_not_within_a_half() -> None:
    assert EXAMPLE.kept_without(["1.attn", "0.kv:1"]) == {
        "0.kv": 1,
        "0.ffn": 4,
        "1.kv": 0,
        "1.ffn": 4,
        "2.kv": 2,
        "2.ffn": 4,
    }
    plan = plan_of_units(EXAMPLE, ["1.attn", "0.kv:1"])
    assert (plan.keep, plan.drop, plan.model) == ({"0.kv": (1,)}, ("1.attn",), EXAMPLE.model)
    assert [EXAMPLE.kept(level) for level in range(5)] == [
        EXAMPLE.kept_without(rung.unit for rung in EXAMPLE.rungs[:level]) for level in range(5)
    ]
    with pytest.raises(LadderError, match=r"'1\.ffn' cannot be removed without '1\.ffn:2'"):
        EXAMPLE.kept_without(["1.ffn"])
    with pytest.raises(LadderError, match=r"no step '1\.atn' \(did you mean 1\.attn\?\)"):
        EXAMPLE.kept_without(["1.atn"])
