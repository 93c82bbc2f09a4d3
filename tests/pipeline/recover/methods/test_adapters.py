"""Adapters of every linear of the blocks, of the rank that the options say."""

from __future__ import annotations

import pytest
from tests.conftest import Maker
from tests.pipeline.recover.methods.students import loaded

from secateur.pipeline.recover.distill import Distill
from secateur.pipeline.recover.methods.adapters import lora


def test_adapters_of_the_asked_rank_on_every_linear(tiny: Maker) -> None:
    pytest.importorskip("peft")
    student = loaded(tiny("llama"), Distill(trains="lora", rank=3))
    learner = lora(student)
    linears = {linear.tensor for linear in student.graph.linears}
    assert learner.tensors().keys() == linears
    assert len(learner.parameters) == 2 * len(linears)
    assert {min(parameter.shape) for parameter in learner.parameters.values()} == {3}
