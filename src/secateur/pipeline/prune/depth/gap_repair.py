"""Refit the linear layer before dropped blocks to compensate for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from secateur.calibrate.input_statistics import HiddenStates
from secateur.core.footprint import dropped_halves
from secateur.core.graph import Graph
from secateur.tensors.layer_stream import SUB_BLOCKS, LayerStream, LiveBlock, alone
from secateur.tensors.precision import arithmetic
from secateur.transform.gap_fit import SeamFit

SubBlock = tuple[int, str]


def gaps(graph: Graph, drop: Collection[str]) -> dict[SubBlock, tuple[SubBlock, ...]]:
    """Return the dropped sub-blocks behind each surviving one that has some."""
    found: dict[SubBlock, tuple[SubBlock, ...]] = {}
    last: SubBlock | None = None
    for block in graph.blocks:
        removed = dropped_halves(block, drop)
        for part in (part for part in SUB_BLOCKS if block.halves[part]):
            sub_block = (block.index, part)
            if part not in removed:
                last = sub_block
            elif last is not None:
                found[last] = (*found.get(last, ()), sub_block)
    return found


def close_gap(
    live: LiveBlock,
    part: str,
    hidden: HiddenStates,
    whole: LayerStream,
    gap: Sequence[SubBlock],
    kept: Mapping[str, Tensor],
) -> None:
    """Refit the last linear of sub-block `part` so that its output comes nearest to what `gap` makes of it.

    live: runs that sub-block only; hidden: its inputs; whole: the model with nothing dropped; kept: inputs
    that remain, by linear, where some are removed.
    The target is what the dropped sub-blocks `gap` would make of the pruned model's own states, which takes
    one more copy of these in memory.
    """
    (name,) = (
        linear.tensor
        for linear in live.block.linears
        if linear.tensor in live.block.halves[part] and linear.stage == _last_stage(live, part)
    )
    reached = hidden.twin()
    reached.advance(live)
    for index, sub_block in gap:
        with whole.open(index) as removed, alone(removed, sub_block):
            reached.advance(removed)
    fit = SeamFit(*live.weight(name).shape)
    for batch, target in zip(hidden.batches(), reached.batches(), strict=True):
        fit.add(_inputs(live, name, batch), target - live(batch), target)
    with arithmetic("float32"):
        change = fit.change(kept.get(name))
    if change is not None:
        live.weight(name).add_(change)


def _inputs(live: LiveBlock, name: str, batch: Tensor) -> Tensor:
    seen: list[Tensor] = []
    live.tap((name,), batch, lambda _tensor, inputs: seen.append(inputs))
    return seen[0]


def _last_stage(live: LiveBlock, part: str) -> int:
    return max(linear.stage for linear in live.block.linears if linear.tensor in live.block.halves[part])
