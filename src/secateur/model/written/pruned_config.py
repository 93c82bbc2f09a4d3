"""The config of a model that a plan prunes."""

from __future__ import annotations

from typing import Any

from secateur.core.footprint import dropped_halves, kept_shape
from secateur.core.graph import Graph
from secateur.core.plan import Plan
from secateur.model.handle import ModelHandle
from secateur.model.tokenizer_pruning import fewer_ids
from secateur.model.unequal_blocks import pruned_config


def planned_config(model: ModelHandle, plan: Plan) -> dict[str, Any]:
    """Return the config of the model that `plan` makes of `model`.

    It names a modelling file if the classes of transformers cannot load that model.
    """
    graph = model.graph
    alive = surviving_blocks(model.graph, plan)
    config = model.source.config
    if tokens := plan.keep.get(graph.vocab.name):
        config = fewer_ids(config, tokens) | {"vocab_size": len(tokens)}
    channels = len(plan.keep.get(graph.hidden.name, range(graph.hidden_size)))
    shapes = [kept_shape(graph.blocks[index], plan.keep, plan.drop) for index in alive]
    return pruned_config(config, shapes, alive, channels if channels < graph.hidden_size else None)


def is_stock(model: ModelHandle, plan: Plan) -> bool:
    """Whether transformers' own classes load the model that `plan` makes of `model`."""
    return "auto_map" not in planned_config(model, plan)


def surviving_blocks(graph: Graph, plan: Plan) -> tuple[int, ...]:
    """Return the indices of the blocks of which a sub-block is retained."""
    return tuple(block.index for block in graph.blocks if len(dropped_halves(block, plan.drop)) < 2)
