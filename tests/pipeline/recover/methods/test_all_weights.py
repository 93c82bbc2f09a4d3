"""Every weight of a whole model learns but embeddings and head."""

from __future__ import annotations

import pytest
from tests.conftest import Maker
from tests.pipeline.recover.methods.students import loaded

from secateur.model.families import EMBED, HEAD
from secateur.pipeline.recover.distill import Distill
from secateur.pipeline.recover.methods.all_weights import all_weights


def test_everything_learns_but_embeddings_and_head_in_steps_of_its_own_size(tiny: Maker) -> None:
    student = loaded(tiny("llama"), Distill(), masked=True)
    learner = all_weights(student)
    assert set(learner.parameters) == set(student.graph.tensors) - {EMBED, HEAD}
    assert learner.masks.keys() == student.masks.keys()
    name = student.graph.linears[0].tensor
    weight = learner.parameters[name].detach()
    assert learner.sizes[name] == pytest.approx(float(weight[weight != 0].square().mean().sqrt()))
