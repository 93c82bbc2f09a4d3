"""Gradual pruning: zeros that grow during training, and the plan that says which they are."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from secateur.core.execution import CalibrationText, Execution
from secateur.core.graph import Graph
from secateur.core.pattern import Pattern
from secateur.core.plan import Plan
from secateur.criteria import CRITERIA, default_scope
from secateur.model.handle import ModelHandle
from secateur.tensors.stats import LinearStats
from secateur.train.gradual import Choose
from secateur.transform.mask import choose_mask
from secateur_runtime.errors import UsageError

_KNOWN = frozenset({"input_sq"})
_WINDOWS = 16
"""Windows that tell the sizes of inputs; their mean squares are known long before a mask is."""


def check_growing(criterion: str) -> None:
    """Raise UsageError for a criterion that is not known, or needs more than the sizes of the inputs."""
    if CRITERIA[criterion].needs - _KNOWN:
        able = [name for name in CRITERIA if not CRITERIA[name].needs - _KNOWN]
        raise UsageError(
            f"--criterion {criterion} needs more than the sizes of inputs while a model is trained: use"
            f" {', '.join(able)}"
        )


def by_criterion(name: str, model: Any, graph: Graph, tokens: Tensor) -> Choose:
    """Return the function that chooses which weights stay, by a criterion on the inputs that `model` has now.

    model: a transformers model; tokens: `[windows, length]`, of which the first 16 windows are read.
    """
    criterion = CRITERIA[name]
    scope = default_scope(name)
    nothing = torch.empty(0)
    stats = {
        linear.tensor: LinearStats(0, nothing, nothing, seed=place)
        for place, linear in enumerate(graph.linears)
    }
    if criterion.needs:
        stats = _inputs(model, graph, tokens[:_WINDOWS])

    def choose(tensor: str, weight: Tensor, ratio: float) -> Tensor:
        return choose_mask(criterion.function(weight, stats[tensor]), Pattern(ratio), scope)

    return choose


def grown(student: ModelHandle, criterion: str, sparsity: float, text: CalibrationText, seed: int) -> Plan:
    """Return the plan of the zeros that a training made; text: what it was trained on."""
    pattern = str(Pattern(sparsity))
    method = {
        "criterion": criterion,
        "repair": "none",
        "scope": default_scope(criterion),
        "allocation": "uniform",
        "target": pattern,
    }
    read = text if CRITERIA[criterion].needs else None
    return Plan(
        model=student.digest,
        sparsity={linear.tensor: pattern for linear in student.graph.linears},
        execution=Execution(criterion=criterion, scope=default_scope(criterion), calibration=read, seed=seed),
        made_by={
            **method,
            "seed": str(seed),
            "secateur": version("secateur"),
            **(read.facts if read else {}),
        },
    )


@torch.no_grad()
def _inputs(model: Any, graph: Graph, tokens: Tensor) -> dict[str, LinearStats]:
    """Return the mean squares of the inputs of every linear of the blocks."""
    found: dict[str, LinearStats] = {}

    def see(tensor: str, inputs: Tensor) -> None:
        rows = inputs.detach().reshape(-1, inputs.shape[-1]).float()
        size = rows.square().mean(0) / len(tokens)
        if tensor in found:
            found[tensor].input_sq += size
        else:
            found[tensor] = LinearStats(tokens.numel(), size, torch.empty(0))

    handles = [
        model.get_submodule(f"{block.prefix}{linear.module}").register_forward_pre_hook(
            lambda _module, given, name=linear.tensor: see(name, given[0])
        )
        for block in graph.blocks
        for linear in block.linears
    ]
    device = next(model.parameters()).device
    for window in tokens:
        model(window[None].to(device), use_cache=False)
    for handle in handles:
        handle.remove()
    return found
