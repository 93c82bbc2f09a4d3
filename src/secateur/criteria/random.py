"""Random: the baseline every criterion must beat."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.criteria import criterion
from secateur.tensors.stats import LinearStats

_GOLDEN = -0x61C8864680B583EB
_MIX_A = -0x40A7B892E31B1A47
_MIX_B = -0x6B2FB644ECCEEE15


@criterion("random", scope="row")
def random(weight: Tensor, stats: LinearStats) -> Tensor:
    """Uniform scores in [0, 1), the same in every run.

    weight, result: `[out_features, in_features]`. The score hashes the weight's position, `stats.seed`, and
    the tensor's bits, so that two tensors of one shape get unrelated scores.
    """
    # integer sums do not depend on the order in which threads add
    fingerprint = int(weight.float().contiguous().view(torch.int32).sum(dtype=torch.int64))
    salt = _mix(torch.tensor([fingerprint, stats.seed], dtype=torch.int64))
    position = torch.arange(weight.numel(), dtype=torch.int64, device=weight.device).view(weight.shape)
    mixed = _mix(position * _GOLDEN + (salt[0] * 3 + salt[1]).to(weight.device))
    return _shift(mixed, 40).to(torch.float32) / (1 << 24)


def _shift(value: Tensor, bits: int) -> Tensor:
    """Shift right without copying the sign bit."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix(value: Tensor) -> Tensor:
    """Finaliser of SplitMix64 (Steele et al., 2014): every input bit moves every output bit."""
    value = value + _GOLDEN
    value = (value ^ _shift(value, 30)) * _MIX_A
    value = (value ^ _shift(value, 27)) * _MIX_B
    return value ^ _shift(value, 31)
