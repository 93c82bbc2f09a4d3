"""Criteria for depth, one pure function per file.

What was and what became of it in, a cost per position out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from secateur_runtime.errors import UsageError
from secateur_runtime.registry import Registry

DepthCriterion = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Takes `[positions, width]` as it was, the same as it became, and the token ids `[positions]` that follow;
returns `[positions]` float32; the lower, the less is lost."""

Compares = Literal["block", "span", "last", "predictions"]
"""What a criterion is shown.

block: the states before and after what may go, in the whole model; scored once.
span: the states before and after a run of blocks, which go together.
last: the last states of the whole model and of one whose blocks took in others; measured anew after every
step.
predictions: the logits of the whole model and of one without what may go; measured anew after every step.
"""

DEPTH_CRITERIA: Registry[DepthCriterion] = Registry("depth criterion", "secateur.criteria.depth")
_COMPARES: dict[str, Compares] = {}
_HALVES = ("block", "predictions")


def depth_criterion(
    name: str, *, compares: Compares, paper: str = ""
) -> Callable[[DepthCriterion], DepthCriterion]:
    """Return a decorator that registers a depth criterion."""
    _COMPARES[name] = compares
    return DEPTH_CRITERIA.register(name, paper=paper)


def compared_by(name: str, *, halves: bool = False) -> Compares:
    """Return what a criterion is shown.

    Raises UsageError for an unknown one, and for one that cannot judge halves if `halves` go.
    """
    compares = _COMPARES[DEPTH_CRITERIA[name].name]
    if halves and compares not in _HALVES:
        able = ", ".join(other for other in DEPTH_CRITERIA if _COMPARES[other] in _HALVES)
        raise UsageError(
            f"--criterion {name} takes whole blocks only: leave out --sub-blocks, or use one of {able}"
        )
    return compares
