"""The table of recovery methods is the one that options, recipes and the command line read."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from secateur.pipeline.recipe.schema import read_recipe
from secateur.pipeline.recover.distill import Distill
from secateur.pipeline.recover.local_reconstruction import Local
from secateur.pipeline.recover.methods import RECOVERIES, method_training
from secateur_runtime.errors import UsageError

WHOLE_MODEL = [name for name, row in RECOVERIES.items() if row.learner]


def test_each_training_of_a_whole_model_has_one_method() -> None:
    trained = {RECOVERIES[name].trains: name for name in WHOLE_MODEL}
    assert trained == {"all": "distill", "lora": "lora", "bias": "bias", "scales": "scales"}
    assert set(RECOVERIES) - set(WHOLE_MODEL) == {"local"}
    for trains, name in trained.items():
        assert method_training(trains) is RECOVERIES[name]
        assert Distill(trains=trains).method == name


def test_an_unknown_training_is_one_line_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown trains 'lorra' \(did you mean lora\?\); known: bias, all"):
        Distill(trains="lorra").check()


@pytest.mark.parametrize("name", RECOVERIES)
def test_a_method_trains_a_whole_model_or_has_a_way_of_its_own(name: str) -> None:
    row = RECOVERIES[name]
    assert row.name == name
    assert (row.learner is None) == (row.start is not None) == (row.kind is not None)
    assert row.rate > 0


@pytest.mark.parametrize("name", RECOVERIES)
def test_a_recipe_builds_the_options_of_each(name: str, tmp_path: Path) -> None:
    for package in RECOVERIES[name].packages:
        pytest.importorskip(package)
    before = ["quantize"] if RECOVERIES[name].quantized else [{"prune": {"sparsity": 0.5}}]
    body = {"model": "m", "stages": [*before, {"recover": {"method": name}}]}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(body))
    options = read_recipe(tmp_path / "r.yaml").stages[-1].options
    assert isinstance(options, Local | Distill)
    assert options.method == name


@pytest.mark.parametrize("name", WHOLE_MODEL)
def test_the_rate_is_that_of_the_table_unless_given(name: str) -> None:
    trains = RECOVERIES[name].trains
    assert Distill(trains=trains).regime(64, 128, 1, bfloat16=False).rate == RECOVERIES[name].rate
    assert Distill(trains=trains, rate=0.5).regime(64, 128, 1, bfloat16=False).rate == 0.5


def test_the_rates_are_those_that_were_measured() -> None:
    rates = {name: row.rate for name, row in RECOVERIES.items()}
    assert rates == {"bias": 1e-3, "distill": 5e-4, "local": 0.0175, "lora": 2e-3, "scales": 2e-3}
