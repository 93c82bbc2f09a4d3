"""Run an allocation over a tiny model, with the scores and sizes of all tensors for comparison."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from secateur.allocate import Allocation, Scorer
from secateur.calibrate.input_statistics import HiddenStates, collect
from secateur.criteria.wanda import wanda
from secateur.model.handle import open_model
from secateur.tensors.layer_stream import LiveBlock

Make = Callable[[float, Scorer], Allocation]


def unchanged(_block: LiveBlock) -> None:
    """Leave a block as it is."""


def allocated(
    folder: Path, make: Make, budget: float, change: Callable[[LiveBlock], None] = unchanged
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Return an allocation's ratios and the Wanda scores of every tensor, both by name.

    change: changes weights of a block in place before it is observed.
    """
    stream = open_model(str(folder)).stream()
    hidden = HiddenStates(stream, torch.randint(200, (4, 64), generator=torch.Generator().manual_seed(8)))
    allocation = make(budget, wanda)
    scores: dict[str, Tensor] = {}
    for index in range(len(stream)):
        with stream.open(index) as block:
            linears = block.block.linears
            change(block)
            stats = collect(block, linears, hidden, {"gram"})
            for linear in linears:
                scores[linear.tensor] = wanda(block.weight(linear.tensor), stats[linear.tensor])
            allocation.observe(block, linears, stats, next(hidden.batches()))
            hidden.advance(block)
    return allocation.ratios(), scores
