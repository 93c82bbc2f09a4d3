"""What a plan takes from every block."""

from __future__ import annotations

from secateur.core.footprint import dropped_halves, footprint
from secateur.core.graph import Block, Graph
from secateur.core.pattern import Pattern
from secateur.core.plan import Plan


def removed(graph: Graph, plan: Plan) -> tuple[tuple[float, float], ...]:
    """Return, for each block, the share of the parameters of its attention and of its FFN that the plan takes away or makes zero."""
    return tuple(
        (_share(graph, block, "attn", plan), _share(graph, block, "ffn", plan)) for block in graph.blocks
    )


def _share(graph: Graph, block: Block, half: str, plan: Plan) -> float:
    names = block.halves[half]
    total = sum(graph.tensors[name].numel for name in names)
    if not total or half in dropped_halves(block, plan.drop):
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
    # What the whole model loses, less what it loses without this half, is what this half loses.
    alone = [f"{block.index}.{half}"]
    rest = footprint(graph, keep, alone, 1).block_parameters
    left = footprint(graph, keep, (), 1).block_parameters - rest
    return (total - left + zeros) / total
