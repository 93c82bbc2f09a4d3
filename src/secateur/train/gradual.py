"""Prune while training: zeros grow along a cubic, and what is left recovers in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.train.learner import Learner

Choose = Callable[[str, Tensor, float], Tensor]
"""Name of a weight, the weight and its share of zeros in, keep-mask of its shape out."""


def cubic(step: int, stop: int, final: float) -> float:
    """Return the share of zeros at `step`.

    Fast at first, when much is redundant, `final` from `stop` on (arXiv:1710.01878).
    """
    return final if step >= stop else final * (1 - (1 - step / stop) ** 3)


@dataclass(frozen=True, slots=True)
class Gradual:
    """Which weights become zero, and when.

    tensors: names of weights. final: share of zeros that each ends with. stop: step at which it is reached;
    every: steps between two cuts.
    choose: which weights stay, by what they have become.
    """

    tensors: Sequence[str]
    final: float
    stop: int
    every: int
    choose: Choose

    @torch.no_grad()
    def cut(self, learner: Learner, step: int) -> None:
        """Choose the zeros anew if a cut is due before `step`, and keep those there are.

        What is zero has no size, so it is chosen again. Moments of the optimizer would bring it back: it is
        zeroed after every step.
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
