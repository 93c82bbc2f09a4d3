"""Remove units from an in-memory block and refit the remaining weights to compensate."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from secateur.calibrate.input_statistics import HiddenStates, collect
from secateur.tensors.layer_stream import LiveBlock
from secateur.tensors.precision import arithmetic
from secateur.transform.surgery import survivors
from secateur.transform.unit_repair import CutLinear, UnitRepair
from secateur_runtime.registry import Entry


def carve(
    live: LiveBlock,
    hidden: HiddenStates,
    tensors: Collection[str],
    keep: Mapping[str, tuple[int, ...]],
    repair: Entry[UnitRepair],
    seed: int,
) -> None:
    """Zero the inputs of each sub-block's last linear, among `tensors`, whose units are not in `keep`.

    hidden: the states that enter the block, from which `repair` learns how the remaining inputs compensate.
    """
    outputs = {group.slices[-1].tensor for group in live.block.groups}.intersection(tensors)
    alive = survivors({name: tuple(live.weight(name).shape) for name in outputs}, live.block.groups, keep)
    for name, (_, kept) in alive.items():
        weight = live.weight(name)
        bias = name.removesuffix("weight") + "bias"
        (linear,) = (linear for linear in live.block.linears if linear.tensor == name)
        stats = collect(live, [linear], hidden, repair.needs, seed)[name]
        with arithmetic("float32"):
            mended = repair.function(CutLinear(weight, stats, kept, bias in live.block.tensors))
        weight.copy_(mended.weight)
        if mended.shift is not None:
            live.weight(bias).add_(mended.shift)


def inputs_kept(live: LiveBlock, keep: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return, for each linear of a block that loses inputs, the indices of those that remain."""
    shapes = {linear.tensor: (linear.out_features, linear.in_features) for linear in live.block.linears}
    return {name: kept for name, (_, kept) in survivors(shapes, live.block.groups, keep).items()}
