"""The table of recovery methods is the one that options, recipes and the command line read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from tests.conftest import Maker
from tests.pipeline.recover.methods.students import loaded

from secateur.pipeline.recipe.schema import read_recipe
from secateur.pipeline.recover.distill import Distill
from secateur.pipeline.recover.local_reconstruction import Local
from secateur.pipeline.recover.methods import RECOVERIES, method_training
from secateur.train.learner import Learner
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


@pytest.mark.parametrize("name", WHOLE_MODEL)
class TestLearner:
    """What a learner of any method must do."""

    def test_it_stores_tensors_of_the_model_and_keeps_zeros(self, name: str, tiny: Maker) -> None:
        row = RECOVERIES[name]
        for package in row.packages:
            pytest.importorskip(package)
        student = loaded(tiny("llama"), Distill(trains=row.trains), masked=not row.quantized)
        before = {key: tensor.clone() for key, tensor in student.model.state_dict().items()}
        assert row.learner is not None
        learner = row.learner(student)
        assert learner.parameters
        assert all(parameter.requires_grad for parameter in learner.parameters.values())
        assert learner.masks.keys() <= student.masks.keys()
        _step(learner)
        stored = learner.tensors()
        assert stored.keys() <= student.graph.tensors.keys()
        for key, tensor in stored.items():
            shape = student.codes[key].scales.shape if row.quantized else before[key].shape
            assert tensor.shape == shape
            assert bool(tensor.isfinite().all())
            assert key not in student.masks or not bool(tensor[~student.masks[key]].any())

    def test_what_it_does_not_store_has_not_changed(self, name: str, tiny: Maker) -> None:
        row = RECOVERIES[name]
        for package in row.packages:
            pytest.importorskip(package)
        student = loaded(tiny("llama"), Distill(trains=row.trains))
        frozen = {key: parameter.detach().clone() for key, parameter in student.model.named_parameters()}
        assert row.learner is not None
        learner = row.learner(student)
        _step(learner)
        stored = learner.tensors()
        assert any(not torch.equal(tensor.float(), frozen[key].float()) for key, tensor in stored.items())
        now = dict(student.model.named_parameters())
        for key in frozen.keys() - stored.keys():
            assert torch.equal(now[key], frozen[key])


@torch.no_grad()
def _step(learner: Learner) -> None:
    """Change every parameter, but where a mask says that it stays zero."""
    for key, parameter in learner.parameters.items():
        change = torch.full_like(parameter, 0.01)
        parameter.add_(change * learner.masks[key] if key in learner.masks else change)
