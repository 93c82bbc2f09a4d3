"""Biases learn, which the student is given where its config can hold them."""

from __future__ import annotations

from tests.conftest import Maker
from tests.pipeline.recover.methods.students import loaded

from secateur.model.handle import open_model
from secateur.pipeline.recover.distill import Distill
from secateur.pipeline.recover.methods import RECOVERIES
from secateur.pipeline.recover.methods.biases import bias


def test_biases_alone_learn(tiny: Maker) -> None:
    learner = bias(loaded(tiny("llama", attention_bias=True), Distill(trains="bias")))
    assert learner.parameters
    assert all(name.endswith(".bias") for name in learner.parameters)


def test_the_student_gets_the_biases_that_its_config_can_hold(tiny: Maker) -> None:
    student = open_model(str(tiny("llama")))
    view = RECOVERIES["bias"].view
    assert view is not None
    added = set(view(student).graph.tensors) - set(student.graph.tensors)
    assert added
    assert all(name.endswith(".bias") for name in added)
