"""Train the scales of a quantized model."""

from __future__ import annotations

from secateur.pipeline.recover.methods import LoadedStudent, recovery
from secateur.train.learner import Learner
from secateur.train.quantization_scales import scales as scales_of


@recovery("scales", rate=2e-3, quantized=True, paper="arXiv:2407.11062")
def scales(student: LoadedStudent) -> Learner:
    """The scales of a quantized model, whose codes stay."""
    return scales_of(student.model, student.codes)
