"""Scales of quantized weights learn, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import torch
from tests.conftest import Maker
from tests.pipeline.recover.methods.students import loaded

from secateur.pipeline.recover.distill import Distill
from secateur.pipeline.recover.methods.scales import scales
from secateur.quantizers.rtn import plainly


def test_scales_alone_learn(tiny: Maker) -> None:
    student = loaded(tiny("llama"), Distill(trains="scales"))
    name = student.graph.linears[0].tensor
    codes = plainly(student.model.get_parameter(name).detach().float(), 8)
    learner = scales(replace(student, codes={name: codes}))
    assert set(learner.parameters) == {name}
    assert torch.equal(learner.tensors()[name], codes.scales)
