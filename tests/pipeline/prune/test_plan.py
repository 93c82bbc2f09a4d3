"""A goal of any kind is decided by its own rule, and options that would be ignored are refused."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conftest import Maker

from secateur.calibrate.calibration import Calibration
from secateur.model.handle import open_model
from secateur.pipeline.prune.depth.decide import Depth
from secateur.pipeline.prune.kinds import Goal
from secateur.pipeline.prune.plan import plan
from secateur.pipeline.prune.vocabulary import Vocab
from secateur.pipeline.prune.weights.decide import Sparsity
from secateur.pipeline.prune.width.decide import Width
from secateur_runtime.errors import SourceError, UsageError

TEXT = Calibration(samples=4, window=32)


@pytest.mark.parametrize(
    ("goal", "cuts"),
    [
        (Sparsity(sparsity="2:4", method="magnitude"), ("sparsity",)),
        (Width(ratio=0.34, criterion="magnitude", repair="none"), ("keep",)),
        (Depth(drop_layers=1, criterion="influence"), ("drop",)),
        (Vocab(ratio=0.2), ("keep",)),
    ],
)
def test_each_kind_of_goal_cuts_what_it_names(tiny: Maker, goal: Goal, cuts: tuple[str, ...]) -> None:
    found = plan(str(tiny("llama")), goal, calibration=TEXT)
    assert found.model == open_model(str(tiny("llama"))).digest
    assert tuple(name for name in ("sparsity", "keep", "drop") if getattr(found, name)) == cuts
    assert found.made_by["seed"] == "0"


def test_without_a_goal_the_fields_are_those_of_a_sparsity(tiny: Maker) -> None:
    fields: dict[str, Any] = {"sparsity": 0.4, "method": "magnitude", "protect": ["first=1"]}
    model = str(tiny("llama"))
    assert plan(model, seed=3, **fields) == plan(model, Sparsity(**fields), seed=3)


def test_mistakes_are_one_line(tiny: Maker) -> None:
    with pytest.raises(UsageError, match=r"method would be ignored .* a Depth: put them into it"):
        plan(str(tiny("llama")), Depth(drop_layers=1), method="wanda")
    with pytest.raises(SourceError, match="does not exist"):
        plan("no-such-model", sparsity=0.5)
