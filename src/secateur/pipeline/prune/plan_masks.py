"""TODO docstring."""

from __future__ import annotations

from torch import Tensor

from secateur.core.graph import Block
from secateur.core.pattern import Pattern
from secateur.core.plan import Plan
from secateur.model.handle import ModelHandle
from secateur.transform.mask import holds
from secateur_runtime.errors import PlanError


def check_masks(student: ModelHandle, plan: Plan | None) -> None:
    """Raise PlanError where a weight has fewer zeros than its plan gives it.

    Somebody changed it since it was pruned.
    """
    if plan is None or plan.keep:
        # Cut after it was masked, a matrix no longer has the zeros of the whole one.
        return
    for block in student.graph.blocks:
        for linear in block.linears:
            text = plan.sparsity.get(_planned(linear.tensor, block, plan))
            if text and not holds(student.source.read(linear.tensor), Pattern.parse(text)):
                raise PlanError(
                    f"{linear.tensor} of {student.source.ref} does not have the sparsity {text} of its"
                    " plan.json: prune it again, or remove plan.json"
                )


def mask_of(tensor: str, weight: Tensor, block: Block, plan: Plan | None) -> Tensor | None:
    """Return which weights of a linear may change: those that are not zero, or None for all of them.

    Of a model with a plan, only what it prunes weight by weight has a mask; of one without, whatever has
    zeros.
    """
    if plan is not None and _planned(tensor, block, plan) not in plan.sparsity:
        return None
    alive = weight != 0
    return None if bool(alive.all()) else alive


def _planned(tensor: str, block: Block, plan: Plan) -> str:
    """Return the name that a tensor of a student has in its plan, which counts the blocks of the model it was made for."""
    place = -1
    index = -1
    while place < block.index:
        index += 1
        place += str(index) not in plan.drop and not {f"{index}.attn", f"{index}.ffn"}.issubset(plan.drop)
    return block.prefix.replace(f".{block.index}.", f".{index}.") + tensor.removeprefix(block.prefix)
