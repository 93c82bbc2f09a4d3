"""A linear that loses inputs, with the raw inputs that its statistics were made of."""

from __future__ import annotations

import torch
from tests.problems import make_stats
from torch import Tensor

from secateur.transform.unit_repair import UNIT_REPAIRS, CutLinear, Repaired

KEPT = torch.tensor([0, 2, 3, 7, 8])
REMOVED = torch.tensor([1, 4, 5, 6, 9])


def case(*, biased: bool = True, seed: int = 0) -> tuple[Tensor, CutLinear]:
    """Return inputs whose means are far from 0, and a cut of a linear that reads them."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(400, 10, generator=generator) @ torch.randn(
        10, 10, generator=generator
    ) + 2 * torch.randn(10, generator=generator)
    weight = torch.randn(6, 10, generator=generator)
    return inputs, CutLinear(weight, make_stats(inputs), KEPT, biased)


def outputs(inputs: Tensor, done: Repaired) -> Tensor:
    return inputs.double() @ done.weight.double().T + (0.0 if done.shift is None else done.shift.double())


def errors(inputs: Tensor, cut: CutLinear, name: str) -> Tensor:
    """Return the mean squared error of every output."""
    return (
        (outputs(inputs, UNIT_REPAIRS[name].function(cut)) - inputs.double() @ cut.weight.double().T)
        .square()
        .mean(0)
    )
