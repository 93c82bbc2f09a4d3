"""FLAP's compensation: a bias stands for the mean of what leaves."""

from __future__ import annotations

import torch

from secateur.transform.unit_repair import CutLinear, Repaired, unit_repair
from secateur_runtime.errors import UsageError


@unit_repair("bias", bias="must", needs={"input_mean"}, paper="arXiv:2312.11983")
def bias(cut: CutLinear) -> Repaired:
    """Add `W_gone E[x_gone]`, so that the mean output stays what it was.

    Raises UsageError for a linear that cannot hold a bias. An et al., 2024.
    """
    if not cut.biased:
        raise UsageError("this linear cannot hold the bias that --repair bias adds: use --repair lsq")
    gone = torch.ones(cut.weight.shape[1], dtype=torch.bool)
    gone[cut.kept] = False
    return Repaired(cut.bare(), (cut.weight[:, gone].double() @ cut.stats.input_mean[gone].double()).float())
