"""Ways to meet one target: what they leave meets it, none is listed twice, and the nearest is named."""

from __future__ import annotations

import pytest
from tests.conftest import Maker

from secateur.core.context import RunContext
from secateur.core.footprint import footprint
from secateur.core.graph import Graph
from secateur.core.target import Target
from secateur.model.handle import ModelHandle, open_model
from secateur.pipeline.prune.auto.candidates import (
    Candidate,
    ModelBudget,
    Narrowing,
    distinct,
    narrowed,
    shallower,
    unreachable,
)
from secateur.pipeline.prune.width.decide import Width, rank_units
from secateur_runtime.errors import TargetError


@pytest.fixture
def model(tiny: Maker) -> ModelHandle:
    return open_model(str(tiny("llama", num_hidden_layers=6)))


def budget(graph: Graph, target: str) -> ModelBudget:
    return ModelBudget(graph, Target.parse([target]), 2)


def narrowing(model: ModelHandle, target: str) -> Narrowing:
    """Narrow FFNs, ranked by their weights alone."""
    groups = [group for block in model.graph.blocks for group in block.groups if group.kind == "ffn"]
    width = Width(target=target, criterion="magnitude", repair="none", align=8)
    return Narrowing(budget(model.graph, target), rank_units(model, groups, width, None, RunContext()), {})


def test_a_price_is_what_a_target_counts(model: ModelHandle) -> None:
    graph = model.graph
    gone = sum(graph.tensors[name].numel for name in graph.blocks[2].tensors)
    assert budget(graph, "params=80%").price("2") == 2 * gone
    cache = footprint(graph, {}, (), 2).kv_values - footprint(graph, {}, ("2",), 2).kv_values
    assert budget(graph, "ram=1MB@ctx100").price("2") == 2 * gone + 2 * 100 * cache
    assert budget(graph, "params=80%").price("2.ffn") < budget(graph, "params=80%").price("2")


def test_every_way_meets_the_target(model: ModelHandle) -> None:
    known = budget(model.graph, "params=75%")
    ways = {"ffn": narrowing(model, "params=75%")}
    order = ("2", "3", "4")
    found = [*narrowed(ways), *shallower(known, ways, "blocks", order)]
    assert {bool(one.drop) for one in found} == {True, False}
    assert all(known.met(one.keep, one.drop) for one in found)
    assert found[0].name == "width ffn"
    assert any(one.name == "depth blocks" and one.drop == order and not one.keep for one in found)
    mixed = [one for one in found if one.name.startswith("mix")]
    assert mixed
    assert all(one.drop == order[: len(one.drop)] and one.keep for one in mixed)


def test_what_is_dropped_is_not_narrowed(model: ModelHandle) -> None:
    keep = narrowing(model, "params=75%")(("2",))
    assert keep
    assert "2.ffn" not in keep


def test_a_target_out_of_reach_of_narrowing_keeps_nothing(model: ModelHandle) -> None:
    assert narrowing(model, "params=75%")(tuple(str(index) for index in range(6))) == {}
    assert narrowing(model, "params=5%")(()) == {}


def test_each_plan_is_listed_once() -> None:
    one = Candidate("a", {"0.ffn": (1,)}, ("2", "3"))
    same = Candidate("b", {"0.ffn": (1,)}, ("3", "2"))
    other = Candidate("c", {"0.ffn": (2,)}, ("2", "3"))
    assert distinct([one, same, other, one]) == [one, other]


def test_the_nearest_target_is_named_and_can_be_met(model: ModelHandle) -> None:
    error = unreachable(budget(model.graph, "params=1%"), {}, {"blocks": ("2", "3")})
    assert isinstance(error, TargetError)
    near = str(error).rpartition("the nearest is ")[2]
    assert budget(model.graph, near).met({}, ("2", "3"))
    assert not budget(model.graph, near).met({}, ("2",))
