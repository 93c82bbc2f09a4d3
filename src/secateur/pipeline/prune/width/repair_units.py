"""The output biases that a repair of units fills."""

from __future__ import annotations

from collections.abc import Collection

from secateur.core.footprint import dropped_halves
from secateur.core.plan import Plan
from secateur.model.handle import ModelHandle
from secateur.model.views.output_bias import holds_output_bias, output_module, with_output_biases
from secateur.transform.unit_repair import bias_for
from secateur_runtime.errors import UsageError


def with_repair_biases(model: ModelHandle, plan: Plan) -> ModelHandle:
    """Return the model with the biases that the repair of a plan fills, zero until then.

    Raises as `biased_for` does.
    """
    parts = {
        group.half
        for block in model.graph.blocks
        for group in block.groups
        if group.name in plan.keep and group.half not in dropped_halves(block, plan.drop)
    }
    return biased_for(model, plan.execution.unit_repair, parts)


def biased_for(model: ModelHandle, repair: str, parts: Collection[str]) -> ModelHandle:
    """Return the model with the biases that `repair` fills when units leave `parts` (`attn`, `ffn`).

    Raises UsageError if it cannot do without a bias that the family's stock config cannot hold.
    """
    family = model.family
    wanted = bias_for(repair)
    if wanted == "none":
        return model
    for part in sorted(parts):
        if wanted == "must" and not holds_output_bias(family, part):
            module = output_module(family, part)
            raise UsageError(
                f"--repair {repair} adds a bias to {module}, which a stock {family.name} config cannot hold:"
                " use --repair lsq"
            )
    return with_output_biases(model, parts)


def filled(model: ModelHandle, repair: str, parts: Collection[str]) -> str:
    """Return, for a plan, the sub-blocks whose outputs get a bias: `attn`, `ffn`, `attn,ffn` or `none`.

    Empty for a repair that fills none.
    """
    if bias_for(repair) == "none":
        return ""
    family = model.family
    return ",".join(sorted(part for part in parts if holds_output_bias(family, part))) or "none"
