"""Prune while training: zeros grow along a cubic, and the remaining weights recover in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.train.learner import Learner

Choose = Callable[[str, Tensor, float], Tensor]
"""Name of a weight, the weight and its share of zeros in, keep-mask of its shape out."""


def cubic(step: int, stop: int, final: float) -> float:
    """Return the share of zeros at `step`: it rises fast at first, and is `final` from `stop` on.

    The schedule of Zhu and Gupta, 2017 (arXiv:1710.01878).
    """
    return final if step >= stop else final * (1 - (1 - step / stop) ** 3)


@dataclass(frozen=True, slots=True)
class Gradual:
    """Which weights become zero, and when.

    tensors: names of weights.
    final: share of zeros that each ends with; stop: step at which it is reached.
    every: steps between two cuts.
    choose: returns which weights are retained, from their present values.
    """

    tensors: Sequence[str]
    final: float
    stop: int
    every: int
    choose: Choose

    @torch.no_grad()
    def cut(self, learner: Learner, step: int) -> None:
        """Choose the zeros again if a cut is due before `step`, and restore the zeros there are.

        A zero has the least size, so it is chosen again. The optimizer's moments would make it nonzero, so it
        is zeroed after every step.
        """
        if step == self.stop or (step < self.stop and step % self.every == 0):
            for name in self.tensors:
                learner.masks[name] = self.choose(
                    name, learner.parameters[name].detach(), cubic(step, self.stop, self.final)
                )
        for name in self.tensors:
            if name not in learner.masks:
                learner.masks[name] = learner.parameters[name].detach() != 0
            learner.parameters[name].mul_(learner.masks[name])
