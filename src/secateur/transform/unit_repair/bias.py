"""FLAP's compensation: a bias replaces the mean output of the removed inputs."""

from __future__ import annotations

import torch

from secateur.transform.unit_repair import CutLinear, Repaired, unit_repair
from secateur_runtime.errors import UsageError


@unit_repair("bias", bias="must", needs={"input_mean"}, paper="arXiv:2312.11983")
def bias(cut: CutLinear) -> Repaired:
    """Add `W_removed E[x_removed]`, so that the mean output does not change.

    Raises UsageError for a linear that cannot hold a bias. An et al., 2024.
    """
    if not cut.biased:
        raise UsageError("this linear cannot hold the bias that --repair bias adds: use --repair lsq")
    removed = torch.ones(cut.weight.shape[1], dtype=torch.bool)
    removed[cut.kept] = False
    shift = cut.weight[:, removed].double() @ cut.stats.input_mean[removed].double()
    return Repaired(cut.bare(), shift.float())
