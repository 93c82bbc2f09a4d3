"""The share of every block that a plan removes."""

from __future__ import annotations

from secateur.core.footprint import dropped_halves, footprint
from secateur.core.graph import Block, Graph
from secateur.core.pattern import Pattern
from secateur.core.plan import Plan


def removed(graph: Graph, plan: Plan) -> tuple[tuple[float, float], ...]:
    """Return the share of parameters that a plan removes or zeroes, of each block's attention and FFN."""
    return tuple(
        (_share(graph, block, "attn", plan), _share(graph, block, "ffn", plan)) for block in graph.blocks
    )


def _share(graph: Graph, block: Block, sub_block: str, plan: Plan) -> float:
    names = block.halves[sub_block]
    total = sum(graph.tensors[name].numel for name in names)
    if not total or sub_block in dropped_halves(block, plan.drop):
        return 1.0 if total else 0.0
    zeros = sum(
        graph.tensors[name].numel * Pattern.parse(plan.sparsity[name]).ratio
        for name in names
        if name in plan.sparsity
    )
    keep = {
        name: units
        for name, units in plan.keep.items()
        if name.startswith(f"{block.index}.") or name == graph.hidden.name
    }
    # The loss of the whole model, less its loss without this sub-block, is the loss of this sub-block.
    alone = [f"{block.index}.{sub_block}"]
    rest = footprint(graph, keep, alone, 1).block_parameters
    left = footprint(graph, keep, (), 1).block_parameters - rest
    return (total - left + zeros) / total
