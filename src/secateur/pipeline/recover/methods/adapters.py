"""Train adapters of low rank."""

from __future__ import annotations

from secateur.pipeline.recover.methods import LoadedStudent, recovery
from secateur.train.learner import Learner
from secateur.train.lora import adapters


@recovery("lora", rate=2e-3, options=("rank",), packages=("accelerate", "peft"), paper="arXiv:2312.15230")
def lora(student: LoadedStudent) -> Learner:
    """Adapters of low rank, masked where weights are zero, and merged."""
    modules = [linear.tensor.removesuffix(".weight") for linear in student.graph.linears]
    how = student.how
    return adapters(student.model, modules, student.masks, rank=how.rank, alpha=how.alpha, seed=student.seed)
