"""Bits for each layer under a budget: rounding errors weighted by their effect on predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from secateur.allocate.bits import StorageOption, cheapest
from secateur.calibrate.input_statistics import HiddenStates, collect
from secateur.core.graph import Graph, Linear
from secateur.core.progress import Progress
from secateur.core.target import Target
from secateur.criteria.depth.kl import kl
from secateur.pipeline.prune.compared_positions import FEW_POSITIONS, spread_positions, variants_at_once
from secateur.pipeline.prune.depth.block_ablation import predicted
from secateur.quantizers import QUANTIZERS
from secateur.tensors.layer_stream import LayerStream, LiveBlock
from secateur.tensors.precision import arithmetic
from secateur_runtime.errors import TargetError, UnreachableTargetError
from secateur_runtime.kernels.quantized import Grid

CHOICES = (3, 4, 5, 6, 8)
_WINDOWS = 8
_TOKENS = 1024
"""Windows on which inputs are measured, and tokens of them from whose predictions some are compared."""

SubBlock = tuple[int, str]


@dataclass(slots=True)
class _Measured:
    """What rounding does to one sub-block.

    divergence: of the predictions, with the fewest bits in this sub-block alone, nats per token.
    errors: linears that share an input -> bits -> squared error of their outputs, the inputs taken as
    uncorrelated.
    """

    errors: dict[tuple[Linear, ...], dict[int, float]] = field(default_factory=dict)
    divergence: float = 0.0


def budget_of(graph: Graph, target: Target, grids: Mapping[str, Grid], width: int) -> int:
    """Return the bytes that the weights in `grids` may take.

    width: bytes of a weight that is not quantized.
    Raises TargetError for a budget that is none of bytes, or out of reach.
    """
    if any(limit.metric != "size" for limit in target.limits):
        raise TargetError(
            f"target {target} is none that bits can meet: write size=60MB, or size=30% of the weights as"
            " they are"
        )
    most = min(
        limit.value * (graph.parameters * width if limit.unit == "%" else 1) for limit in target.limits
    )
    rest = sum(info.numel for name, info in graph.tensors.items() if name not in grids) * width
    least = rest + sum(nbytes(graph, name, replace(grid, bits=CHOICES[0])) for name, grid in grids.items())
    if most < least:
        raise UnreachableTargetError(
            f"{target} is out of reach: {CHOICES[0]} bits everywhere take size={least / 1e6:.1f}MB,"
            f" {rest / 1e6:.1f} of them not quantized"
        )
    return int(most) - rest


def nbytes(graph: Graph, name: str, grid: Grid) -> int:
    """Return the bytes that a weight takes on a grid, scales included."""
    return round(graph.tensors[name].numel * grid.bits_per_weight / 8)


def allocate_bits(
    graph: Graph,
    stream: LayerStream,
    grids: Mapping[str, Grid],
    budget: int,
    tokens: Tensor,
    progress: Progress,
) -> dict[str, Grid]:
    """Return the grids with the bits that serve the predictions best within `budget` bytes.

    Linears that share their input share their bits. The cost of a choice is its rounding error at the
    outputs, each unit of which counts the divergence of its sub-block.
    tokens: calibration windows `[windows, tokens]`.
    """
    found = _BitAblation(graph, stream, grids, tokens).measure(progress)
    options: dict[str, list[StorageOption]] = {}
    for one in found.values():
        total = sum(by_bits[CHOICES[0]] for by_bits in one.errors.values())
        for stage, by_bits in one.errors.items():
            sizes = (
                sum(
                    nbytes(graph, linear.tensor, replace(grids[linear.tensor], bits=bits)) for linear in stage
                )
                for bits in CHOICES
            )
            costs = (one.divergence * by_bits[bits] / total if total else 0.0 for bits in CHOICES)
            options[stage[0].tensor] = [
                StorageOption(size, cost) for size, cost in zip(sizes, costs, strict=True)
            ]
    taken = cheapest(options, budget)
    assert taken is not None, "budget_of made sure that the least fits"
    stages = (stage for one in found.values() for stage in one.errors)
    return {
        linear.tensor: replace(grids[linear.tensor], bits=CHOICES[taken[stage[0].tensor]])
        for stage in stages
        for linear in stage
    }


class _BitAblation:
    """Rounds one sub-block at a time and runs what follows on it."""

    def __init__(self, graph: Graph, stream: LayerStream, grids: Mapping[str, Grid], tokens: Tensor) -> None:
        self._graph = graph
        self._stream = stream
        self._grids = grids
        self._tokens = tokens[:_WINDOWS]
        self._read = max(1, _TOKENS // tokens.shape[1])
        following = self._tokens[: self._read, 1:].flatten()
        self._places = spread_positions(len(following), FEW_POSITIONS)
        self._targets = following[self._places]

    def measure(self, progress: Progress) -> dict[SubBlock, _Measured]:
        """Return what rounding does to every sub-block that has weights to quantize.

        As many are measured in one pass as memory allows.
        """
        parts = [
            (block.index, part)
            for block in self._graph.blocks
            for part, names in block.halves.items()
            if self._grids.keys() & set(names)
        ]
        together = variants_at_once(4 * self._read * self._tokens.shape[1] * self._stream.hidden_size)
        progress.start("measure bits", -(-len(parts) // together) * len(self._stream))
        found: dict[SubBlock, _Measured] = {}
        for start in range(0, len(parts), together):
            found |= self._pass(parts[start : start + together], progress)
        return found

    def _pass(self, parts: Sequence[SubBlock], progress: Progress) -> dict[SubBlock, _Measured]:
        found: dict[SubBlock, _Measured] = {}
        hidden = HiddenStates(self._stream, self._tokens)
        states = dict[SubBlock, Tensor]()
        with arithmetic("bfloat16"):
            for index in range(len(self._stream)):
                with self._stream.open(index) as live:
                    dense = torch.cat(list(hidden.batches()))[: self._read].clone()
                    states = {key: live(before) for key, before in states.items()}
                    for part in (part for place, part in parts if place == index):
                        found[index, part], states[index, part] = self._rounded(live, part, hidden, dense)
                    hidden.advance(live)
                progress.step(f"block {index}")
            dense = torch.cat(list(hidden.batches()))[: self._read]
            costs = predicted(
                self._stream,
                kl,
                self._compared(dense),
                [self._compared(states[key]) for key in found],
                self._targets,
            )
        for one, cost in zip(found.values(), costs, strict=True):
            one.divergence = cost
        return found

    def _rounded(
        self, live: LiveBlock, part: str, hidden: HiddenStates, dense: Tensor
    ) -> tuple[_Measured, Tensor]:
        """Return a sub-block's errors for every number of bits, and the block's output with the fewest.

        Weights are restored.
        """
        found = _Measured()
        whole = dict[str, Tensor]()
        for stage in live.block.stages:
            linears = tuple(
                linear
                for linear in stage
                if linear.tensor in self._grids and linear.tensor in live.block.halves[part]
            )
            if not linears:
                continue
            stats = collect(live, linears, hidden, {"input_sq"})
            found.errors[linears] = dict.fromkeys(CHOICES, 0.0)
            for linear in linears:
                weight = live.weight(linear.tensor)
                whole[linear.tensor] = weight.clone()
                for bits in reversed(CHOICES):
                    codes = QUANTIZERS["imatrix"].function(
                        whole[linear.tensor],
                        stats[linear.tensor],
                        replace(self._grids[linear.tensor], bits=bits),
                    )
                    weight.copy_(codes.dense())
                    found.errors[linears][bits] += float(
                        ((weight - whole[linear.tensor]).square() * stats[linear.tensor].input_sq).sum()
                    )
        output = live(dense)
        for name, weight in whole.items():
            live.weight(name).copy_(weight)
        return found, output

    def _compared(self, states: Tensor) -> Tensor:
        return states[:, :-1].flatten(0, 1)[self._places]
