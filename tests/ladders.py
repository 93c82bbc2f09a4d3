"""A small ladder made by hand, and ladders for tiny models."""

from __future__ import annotations

from collections.abc import Sequence

from secateur.core.graph import Graph
from secateur_runtime.ladder import Ladder, Rung, step

EXAMPLE = Ladder(
    model="sha256:" + "0" * 64,
    order={
        "0.kv": (1, 0),
        "0.ffn": (3, 1, 0, 2),
        "1.kv": (0, 1),
        "1.ffn": (0, 1, 2, 3),
        "2.kv": (0, 1),
        "2.ffn": (2, 3, 0, 1),
    },
    whole=Rung(unit="", loss=2.0, weight_bytes=1000, kv_values=48, flops=900),
    rungs=(
        Rung(unit="1.ffn:2", loss=2.05, weight_bytes=960, kv_values=48, flops=860),
        Rung(unit="1.attn", loss=2.11, weight_bytes=900, kv_values=32, flops=800),
        Rung(unit="1.ffn", loss=2.3, weight_bytes=860, kv_values=32, flops=760),
        Rung(unit="0.kv:1", loss=2.9, weight_bytes=830, kv_values=24, flops=730),
    ),
    costs=({"1.ffn:2": 2.05, "1.ffn": 2.2, "1.attn": 2.06}, {"1.attn": 2.11}),
    made_by={"text": "by hand"},
)
"""Three blocks of two key-value groups and four neurons."""


def ladder_for(graph: Graph, digest: str, units: Sequence[str], *, reverse: bool = True) -> Ladder:
    """Return a ladder of `units` for a model, with invented losses and sizes.

    reverse: whether its groups are ordered from the last unit to the first.
    """
    order = {}
    for group in (group for block in graph.blocks for group in block.groups if group.kind in ("kv", "ffn")):
        order[group.name] = tuple(reversed(range(group.size))) if reverse else tuple(range(group.size))
    kept = {name: len(units) for name, units in order.items()}
    for unit in units:
        group_name, count = step(unit, kept)
        kept[group_name] = count
    rungs = tuple(
        Rung(unit=unit, loss=2 + 0.1 * place, weight_bytes=0, kv_values=0, flops=0)
        for place, unit in enumerate(units, 1)
    )
    return Ladder(
        model=digest,
        order=order,
        whole=Rung(unit="", loss=2.0, weight_bytes=0, kv_values=0, flops=0),
        rungs=rungs,
    )
