"""From a level of a ladder to the plan that the workshop applies."""

from __future__ import annotations

from collections.abc import Iterable

from secateur.core.graph import Graph
from secateur.core.plan import Plan
from secateur_runtime.errors import LadderError, nearest
from secateur_runtime.ladder import Ladder, half_of


def plan_of_level(ladder: Ladder, level: int) -> Plan:
    """Return the plan of one level of a ladder, for `secateur apply`.

    Raises LadderError if there is no such level.
    """
    ladder.at(level)
    return plan_of_units(ladder, [rung.unit for rung in ladder.rungs[:level]], f"level={level}")


def plan_of_units(ladder: Ladder, units: Iterable[str], target: str = "") -> Plan:
    """Return the plan that takes some steps of a ladder.

    units: names of the steps, in any order. target: the reason that the plan records.
    Raises LadderError for an unknown step, or for one that needs an earlier step.
    """
    kept = ladder.kept_without(units)
    narrowed = {
        name: tuple(sorted(units[: kept[name]]))
        for name, units in ladder.order.items()
        if 0 < kept[name] < len(units)
    }
    drop = tuple(half_of(name) for name, count in kept.items() if not count)
    return Plan(
        model=ladder.model,
        keep=narrowed,
        drop=drop,
        made_by={"units": "ladder", **({"target": target} if target else {})},
    )


def check_ladder(ladder: Ladder, graph: Graph, model_digest: str) -> None:
    """Raise LadderError unless the ladder was made for this model and orders all units of its groups."""
    if ladder.model != model_digest:
        raise LadderError(
            f"ladder was made for {ladder.model[:19]}..., this model is {model_digest[:19]}...: make one with"
            " `secateur adapt rank`"
        )
    groups = [group for block in graph.blocks for group in block.groups]
    sizes = {group.name: group.size for group in groups if group.kind in ("kv", "ffn")}
    for name in sizes.keys() ^ ladder.order.keys():
        if name in sizes:
            raise LadderError(f"ladder lacks {name!r}: make one with `secateur adapt rank`")
        raise LadderError(f"ladder orders {name!r}, which this model does not have{nearest(name, sizes)}")
    for name, units in ladder.order.items():
        if len(units) != sizes[name]:
            raise LadderError(f"ladder orders {len(units)} units of {name!r}, which has {sizes[name]}")
