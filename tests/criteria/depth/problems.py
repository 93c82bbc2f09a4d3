"""States before and after, logits, and plain float64 arithmetic on them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FIRST, SECOND = torch.randn(2, 7, 11, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([0, 3, 10, 4, 4, 9, 1])


def cosine(a: Tensor, b: Tensor) -> float:
    x: list[float] = a.double().tolist()
    y: list[float] = b.double().tolist()
    return sum(p * q for p, q in zip(x, y, strict=True)) / math.sqrt(
        sum(p * p for p in x) * sum(q * q for q in y)
    )


def log_probability(logits: Tensor, token: int) -> float:
    values = logits.double().tolist()
    return float(values[token] - math.log(sum(math.exp(value) for value in values)))
