"""Which weights of a pruned model must stay zero: read from its plan, or from its zeros."""

from __future__ import annotations

from torch import Tensor

from secateur.core.graph import Block
from secateur.core.pattern import Pattern
from secateur.core.plan import Plan
from secateur.model.handle import ModelHandle
from secateur.transform.mask import holds
from secateur_runtime.errors import PlanError


def check_masks(student: ModelHandle, plan: Plan | None) -> None:
    """Raise PlanError where a weight has fewer zeros than its plan gives it: it was changed since.

    plan: that of `student`; None, or one that also removes units, checks nothing.
    """
    if plan is None or plan.keep:
        # A matrix that lost units after it was masked no longer has the zeros of the whole one.
        return
    for block in student.graph.blocks:
        for linear in block.linears:
            text = plan.sparsity.get(planned_name(linear.tensor, block, plan))
            if text and not holds(student.source.read(linear.tensor), Pattern.parse(text)):
                raise PlanError(
                    f"{linear.tensor} of {student.source.ref} does not have the sparsity {text} of its"
                    " plan.json: prune it again, or remove plan.json"
                )


def mask_of(tensor: str, weight: Tensor, block: Block, plan: Plan | None) -> Tensor | None:
    """Return which weights of a linear may change, bool in the shape of `weight`; None for all of them.

    tensor: its name in the pruned model, part of `block`. Zeros must stay zero. In a model with a plan, only
    weights that it prunes one by one have a mask; in one without, all that have zeros.
    """
    if plan is not None and planned_name(tensor, block, plan) not in plan.sparsity:
        return None
    alive = weight != 0
    return None if bool(alive.all()) else alive


def planned_name(tensor: str, block: Block, plan: Plan) -> str:
    """Return the name that a tensor of a pruned model has in its plan, whose blocks count as before pruning.

    block: the block of the pruned model that holds it.
    """
    place = -1
    index = -1
    while place < block.index:
        index += 1
        place += str(index) not in plan.drop and not {f"{index}.attn", f"{index}.ffn"}.issubset(plan.drop)
    return block.prefix.replace(f".{block.index}.", f".{index}.") + tensor.removeprefix(block.prefix)
