"""The table of recovery methods is the one that options, recipes and the command line read."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import yaml

from secateur.pipeline.recipe.schema import read_recipe
from secateur.pipeline.recover.distill import Distill
from secateur.pipeline.recover.local_reconstruction import Local
from secateur.pipeline.recover.methods import METHODS, WHOLE_MODEL, Trains, method_training


def test_each_training_of_a_whole_model_has_one_method() -> None:
    assert [METHODS[name].trains for name in WHOLE_MODEL] == list(get_args(Trains))
    assert set(METHODS) - set(WHOLE_MODEL) == {"local"}
    for trains in get_args(Trains):
        assert METHODS[method_training(trains)].trains == trains


@pytest.mark.parametrize("name", METHODS)
def test_a_recipe_builds_the_options_of_each(name: str, tmp_path: Path) -> None:
    for package in METHODS[name].packages:
        pytest.importorskip(package)
    before = ["quantize"] if name == "scales" else [{"prune": {"sparsity": 0.5}}]
    body = {"model": "m", "stages": [*before, {"recover": {"method": name}}]}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(body))
    options = read_recipe(tmp_path / "r.yaml").stages[-1].options
    assert isinstance(options, Local | Distill)
    assert options.method == name


@pytest.mark.parametrize("name", WHOLE_MODEL)
def test_the_rate_is_that_of_the_table_unless_given(name: str) -> None:
    trains = METHODS[name].trains
    assert trains is not None
    assert Distill(trains=trains).regime(64, 128, 1, bfloat16=False).rate == METHODS[name].rate
    assert Distill(trains=trains, rate=0.5).regime(64, 128, 1, bfloat16=False).rate == 0.5


def test_local_reconstruction_has_the_rate_of_the_table() -> None:
    assert Local().rate == METHODS["local"].rate
