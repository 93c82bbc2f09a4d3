"""Kinds of pruning: a goal finds its kind, a method finds its kind, and a size is estimated for each."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from tests.conftest import Maker

from secateur.core.estimated_size import EstimatedSize
from secateur.model.handle import open_model
from secateur.pipeline.prune.auto.decide import Auto
from secateur.pipeline.prune.depth.decide import Depth
from secateur.pipeline.prune.kinds import PRUNINGS, Goal, kind_called, kind_of
from secateur.pipeline.prune.vocabulary import Vocab
from secateur.pipeline.prune.weights.decide import Sparsity
from secateur.pipeline.prune.width.decide import Width
from secateur_runtime.errors import UsageError

GOALS: dict[str, Goal] = {
    "weights": Sparsity(sparsity=0.5),
    "width": Width(ratio=0.25),
    "depth": Depth(drop_layers=1),
    "vocab": Vocab(ratio=0.5),
    "auto": Auto(target="params=80%"),
}


def test_every_kind_has_a_goal_here() -> None:
    assert set(GOALS) <= set(PRUNINGS)
    assert {name: kind_of(goal).name for name, goal in GOALS.items()} == {name: name for name in GOALS}
    assert [name for name in PRUNINGS if PRUNINGS[name].changes_tokens] == ["vocab"]


def test_what_is_no_goal_is_refused() -> None:
    @dataclass(frozen=True)
    class Wish:
        def check(self) -> None:
            """Never fail."""

    with pytest.raises(UsageError, match="a Wish is no goal of pruning; known: auto, depth, "):
        kind_of(Wish())


@pytest.mark.parametrize(
    ("method", "targeted", "kind"),
    [
        ("auto", True, "auto"),
        ("auto", False, "weights"),
        ("width", False, "width"),
        ("wanda", True, "weights"),
        ("no such method", False, "weights"),
    ],
)
def test_a_method_means_a_kind(method: str, targeted: bool, kind: str) -> None:
    assert kind_called(method, targeted=targeted) == kind


@pytest.mark.parametrize(
    ("goal", "inside", "outside", "zeros"),
    [
        (GOALS["weights"], 90.0, 10.0, 0.5),
        (GOALS["depth"], 60.0, 10.0, 0.0),
        (Depth(ratio=0.5), 45.0, 10.0, 0.0),
        (Depth(target="ratio=0.5"), 45.0, 10.0, 0.0),
        (GOALS["vocab"], 90.0, 5.0, 0.0),
        (Vocab(target="params=95"), 90.0, 5.0, 0.0),
        (GOALS["auto"], 70.0, 10.0, 0.0),
        (Auto(target="size=100,params=80%"), 40.0, 10.0, 0.0),
        (Width(target="params=60"), 50.0, 10.0, 0.0),
    ],
)
def test_a_size_is_estimated(tiny: Maker, goal: Goal, inside: float, outside: float, zeros: float) -> None:
    graph = open_model(str(tiny("llama"))).graph
    found = kind_of(goal).estimate(goal, EstimatedSize(90.0, 10.0), graph)
    assert (found.inside, found.outside, found.zeros) == pytest.approx((inside, outside, zeros))


def test_a_narrowed_model_loses_its_share_of_the_units(tiny: Maker) -> None:
    graph = open_model(str(tiny("llama"))).graph
    held = sum(
        graph.tensors[f"model.layers.{index}.mlp.{name}_proj.weight"].numel
        for index in range(3)
        for name in ("gate", "up", "down")
    )
    whole = EstimatedSize(float(graph.parameters), 0.0)
    left = kind_of(GOALS["width"]).estimate(GOALS["width"], whole, graph).inside
    assert left == pytest.approx(graph.parameters - 0.25 * held)
