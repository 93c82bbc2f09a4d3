"""Train every weight of a whole model."""

from __future__ import annotations

from secateur.model.families import EMBED, HEAD
from secateur.pipeline.recover.methods import LoadedStudent, recovery
from secateur.train.learner import Learner, named_weights, size


@recovery(
    "distill",
    trains="all",
    rate=5e-4,
    bytes=16,
    options=("sparsity", "criterion", "ratio", "stages"),
    paper="arXiv:1503.02531",
)
def all_weights(student: LoadedStudent) -> Learner:
    """Every weight of the whole model but embeddings and head."""
    # Nothing was cut from embeddings and head, and a short text shows few of their rows.
    learner = named_weights(student.model, student.masks, student.graph.tensors.keys() - {EMBED, HEAD})
    learner.sizes = {name: size(parameter.detach()) or 1.0 for name, parameter in learner.parameters.items()}
    return learner
