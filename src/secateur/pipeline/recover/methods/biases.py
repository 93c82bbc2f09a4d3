"""Train nothing but biases."""

from __future__ import annotations

from secateur.model.handle import ModelHandle
from secateur.model.views.output_bias import with_output_biases
from secateur.pipeline.recover.methods import LoadedStudent, recovery
from secateur.train.bias_only import biases
from secateur.train.learner import Learner


def _with_biases(student: ModelHandle) -> ModelHandle:
    return with_output_biases(student, ("attn", "ffn"))


@recovery("bias", rate=1e-3, view=_with_biases, paper="arXiv:2106.10199")
def bias(student: LoadedStudent) -> Learner:
    """Biases alone, where the config of the family can hold them."""
    return biases(student.model, student.graph.tensors)
