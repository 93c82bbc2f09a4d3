"""Depth criteria, one pure function per file: states before and after in, a cost per position out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeAlias

from secateur_runtime.errors import UsageError
from secateur_runtime.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

DepthCriterion: TypeAlias = "Callable[[Tensor, Tensor, Tensor], Tensor]"
"""Takes `[positions, width]` before removal, the same after it, and the next token ids `[positions]`.

Returns `[positions]` float32; the lower, the less is lost.
"""

Compares = Literal["block", "span", "last", "predictions"]
"""What a criterion is shown.

block: the states before and after the removable part, in the whole model; scored once.
span: the states before and after a run of blocks that is removed together.
last: the last states of the whole model and of one with merged blocks; measured again after every step.
predictions: the logits of the whole model and of one without the removable part; measured again after every
step.
"""

DEPTH_CRITERIA: Registry[DepthCriterion] = Registry(
    "depth criterion", "secateur.criteria.depth", "secateur.depth_criteria"
)
_SCORE_SUB_BLOCKS = ("block", "predictions")


def depth_criterion(
    name: str, *, compares: Compares, paper: str = ""
) -> Callable[[DepthCriterion], DepthCriterion]:
    """Return a decorator that registers a depth criterion; compares: what it is shown."""
    return DEPTH_CRITERIA.register(name, paper=paper, trait=compares)


def compared_by(name: str, *, halves: bool = False) -> Compares:
    """Return what a criterion is shown.

    halves: single sub-blocks (attention or FFN) are to be removed, not whole blocks only. Raises UsageError
    for an unknown criterion, and for one that cannot score sub-blocks if it has to.
    """
    compares: Compares = DEPTH_CRITERIA[name].trait
    if halves and compares not in _SCORE_SUB_BLOCKS:
        able = ", ".join(
            other for other in DEPTH_CRITERIA if DEPTH_CRITERIA[other].trait in _SCORE_SUB_BLOCKS
        )
        raise UsageError(
            f"--criterion {name} takes whole blocks only: leave out --sub-blocks, or use one of {able}"
        )
    return compares
