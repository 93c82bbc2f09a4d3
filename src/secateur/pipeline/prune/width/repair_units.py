"""Which repair a plan's units get, and the model with the biases that it fills."""

from __future__ import annotations

from collections.abc import Collection

from secateur.core.footprint import dropped_halves
from secateur.core.plan import Plan
from secateur.model.families import family_of
from secateur.model.handle import ModelHandle
from secateur.model.views.output_bias import holds_output_bias, output_module, with_output_biases
from secateur.pipeline.prune.depth.gap_repair import SEAM
from secateur.transform.unit_repair import UNIT_REPAIRS, UnitRepair, bias_for
from secateur_runtime.errors import UsageError
from secateur_runtime.registry import Entry


def unit_repair_of(plan: Plan) -> Entry[UnitRepair]:
    """Return the repair of a plan's units: how remaining units compensate for removed ones.

    A plan that also prunes weights names the solver for these: its units are refitted by least squares,
    unless it says `none`. Raises UsageError for an unknown name.
    """
    if not plan.keep:
        return UNIT_REPAIRS["none"]
    name = plan.made_by.get("repair", "none").removesuffix(f"+{SEAM}")
    return UNIT_REPAIRS["lsq" if plan.sparsity and name not in UNIT_REPAIRS else name]


def closes_gaps(plan: Plan) -> bool:
    """Return whether the plan refits the linear layer before each dropped block.

    Its repair is then `seam`, or combined with that of units as `lsq+seam`.
    """
    return SEAM in plan.made_by.get("repair", "").split("+")


def repaired(model: ModelHandle, plan: Plan) -> ModelHandle:
    """Return the model with the biases that the repair of a plan fills, zero until then.

    Raises as `prepared` does.
    """
    parts = {
        group.half
        for block in model.graph.blocks
        for group in block.groups
        if group.name in plan.keep and group.half not in dropped_halves(block, plan.drop)
    }
    return prepared(model, unit_repair_of(plan).name, parts)


def prepared(model: ModelHandle, repair: str, parts: Collection[str]) -> ModelHandle:
    """Return the model with the biases that `repair` fills when units leave `parts` (`attn`, `ffn`).

    Raises UsageError if it cannot do without a bias that the family's stock config cannot hold.
    """
    family = family_of(model.source.config)
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
    family = family_of(model.source.config)
    return ",".join(sorted(part for part in parts if holds_output_bias(family, part))) or "none"
