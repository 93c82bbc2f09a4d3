"""SlimLLM: heads by the output's correlation without them, neurons in the feature space of the output."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.criteria.units import SUB_BLOCK_KINDS, unit_criterion
from secateur.tensors.stats import LinearStats
from secateur.tensors.unit_view import UnitView

_TINY = 1e-30


@unit_criterion("slimllm", kinds=SUB_BLOCK_KINDS, needs={"gram"}, paper="arXiv:2505.22689")
def slimllm(view: UnitView) -> Tensor:
    """Score neurons in the feature space of the output, and heads by what the output loses without them.

    result: `[size]`. A head's score is the number of output channels less the sum of their
    `|Pearson(y - y_h, y)|`, from the covariance of the inputs instead of the activations. The paper's
    exchange of heads afterwards is left out, since one ranking serves every width. Guo et al., 2025.
    Raises ValueError if the Gram matrix was not collected.
    """
    return _neurons(view) if view.group.kind == "ffn" else _heads(view)


def _neurons(view: UnitView) -> Tensor:
    """Return the scores of neurons, `[size]`.

    Norms of gate and up rows, weighted by their inputs, plus the norm of the output column, weighted by the
    output's spectrum.
    """
    stats = view.stats[view.last.tensor]
    down = view.values(view.last)[:, 0].double()
    values, vectors = torch.linalg.eigh(down.T @ _covariance(stats) @ down)
    weight = torch.sigmoid(values / values.mean().clamp_min(_TINY))
    score: Tensor = ((down @ vectors).abs() * weight).norm(dim=1) * stats.input_sq.double().sqrt()
    for part in view.group.slices[:-1]:
        if view.weights[part.tensor].dim() == 2:
            score += (
                view.values(part)[:, 0].double() * view.stats[part.tensor].input_sq.double().sqrt()
            ).norm(dim=1)
    return score.float()


def _heads(view: UnitView) -> Tensor:
    between = _covariances(view)
    everyone = torch.ones(view.group.size, dtype=torch.bool)
    without = [
        _correlation(between, everyone & (torch.arange(view.group.size) != unit))
        for unit in range(view.group.size)
    ]
    return (len(between) - torch.tensor(without, dtype=torch.float64)).float()


def _covariances(view: UnitView) -> Tensor:
    """Return `[out_features, size, size]`: the covariances of what the units add to each output channel."""
    columns = view.values(view.last).double()
    size, block, outputs = columns.shape
    inputs = columns.flatten(0, 1)
    covariance = _covariance(view.stats[view.last.tensor]).view(size, block, -1)
    # a unit at a time: all at once would hold the outputs times the inputs times the units
    rows = [
        (inputs * (covariance[unit].T @ columns[unit])).view(size, block, outputs).sum(1)
        for unit in range(size)
    ]
    return torch.stack(rows).movedim(2, 0)


def _covariance(stats: LinearStats) -> Tensor:
    if stats.gram is None:
        raise ValueError("the slimllm criterion needs stats.gram")
    mean = stats.input_mean.double()
    return stats.gram.double() - mean[:, None] * mean


def _correlation(between: Tensor, kept: Tensor) -> float:
    """Return the sum over channels of `|Pearson|` between what the kept units add and what all units add.

    A constant part correlates with nothing.
    """
    share = kept.double()
    whole = between.sum((1, 2))
    partly = torch.einsum("chk,h->c", between, share)
    alone = torch.einsum("chk,h,k->c", between, share, share)
    return float((partly.abs() / (whole * alone).clamp_min(_TINY).sqrt()).sum())
