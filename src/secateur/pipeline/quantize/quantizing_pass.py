"""Round the weights of each block to integers, run it, and write it packed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from secateur.calibrate.input_statistics import HiddenStates, collect
from secateur.core.context import RunContext
from secateur.core.process_memory import give_back
from secateur.model.formats.compressed_tensors import packed_tensors, quantization_config, unpacked
from secateur.model.written.block_writer import BlockWriter
from secateur.model.written.folder_writer import FolderWriter
from secateur.pipeline.quantize.rounding import Rounding
from secateur.tensors.layer_stream import LiveBlock, alone, sub_blocks
from secateur.tensors.precision import arithmetic
from secateur_runtime.kernels.quantized import Codes, Grid


class QuantizingPass(BlockWriter):
    """One pass over the blocks of the model of `writer`.

    grids: tensor name -> grid of all that is quantized.
    tokens: ids `[windows, tokens]` whose states the pass carries from block to block, in `hidden`.
    zeros, weights, bytes: of what was quantized, scales and zero points included.
    """

    def __init__(
        self,
        writer: FolderWriter,
        rounding: Rounding,
        grids: Mapping[str, Grid],
        tokens: Tensor,
        context: RunContext,
    ) -> None:
        model = writer.model
        super().__init__(writer, model.stream(outside=writer.dtype))
        self.zeros = self.weights = self.bytes = 0
        self._graph = model.graph
        self._rounding = rounding
        self._grids = grids
        self._seed = context.seed
        self.write_outside({name: model.source.read(name).to(writer.dtype) for name in model.graph.outside})
        self.hidden = HiddenStates(self.stream, tokens, budget=context.settings.memory, folder=writer.folder)

    def config(self) -> dict[str, Any]:
        """Return what the config of the folder says about its quantized weights."""
        left = [linear.tensor for linear in self._graph.linears if linear.tensor not in self._grids]
        return quantization_config(self._grids, left)

    def weights_on_grids(self) -> dict[str, int]:
        """Return name of a grid -> how many weights lie on it."""
        found: dict[str, int] = {}
        for name, grid in self._grids.items():
            found[str(grid)] = found.get(str(grid), 0) + self._graph.tensors[name].numel
        return found

    def made(self, live: LiveBlock, place: int) -> dict[str, Tensor]:
        """Quantize attention, run it, then the FFN on its output; return the tensors as they are stored."""
        stored: dict[str, Tensor] = {}
        for part, tensors in sub_blocks(live.block):
            with alone(live, part):
                for name in tensors - self._grids.keys():
                    stored[name] = live.weight(name).to(self.writer.dtype)
                    live.weight(name).copy_(stored[name])
                for stage in live.block.stages:
                    codes = self._quantized(
                        live, [linear.tensor for linear in stage if linear.tensor in tensors]
                    )
                    for name, code in codes.items():
                        stored |= packed_tensors(name, code)
                        self._count(code)
                self.hidden.advance(live)
        return stored

    def _quantized(self, live: LiveBlock, names: list[str]) -> dict[str, Codes]:
        """Quantize linears that share their input, which everything before them has made already."""
        linears = [
            linear for linear in live.block.linears if linear.tensor in names and linear.tensor in self._grids
        ]
        if not linears:
            return {}
        stats = collect(live, linears, self.hidden, self._rounding.needs, self._seed)
        found = dict[str, Codes]()
        give_back()
        # Bfloat16 products are good enough for activations; a solver would keep their error in the weights.
        with arithmetic("float32"):
            for grid in dict.fromkeys(self._grids[linear.tensor] for linear in linears):
                same = [linear.tensor for linear in linears if self._grids[linear.tensor] == grid]
                found |= zip(
                    same,
                    self._rounding([live.weight(name) for name in same], stats[same[0]], grid),
                    strict=True,
                )
        for name, codes in found.items():
            live.weight(name).copy_(codes.dense())
        return found

    def restored(self, live: LiveBlock, place: int, tensors: Mapping[str, Tensor]) -> None:
        """Put what is stored into a block, and run the states through it."""
        for name in live.block.tensors:
            if name in self._grids:
                codes = unpacked(name, self._grids[name], tensors)
                live.weight(name).copy_(codes.dense())
                self._count(codes)
            else:
                live.weight(name).copy_(tensors[name])
        self.hidden.advance(live)

    def _count(self, codes: Codes) -> None:
        self.weights += codes.values.numel()
        self.bytes += codes.nbytes
        middle = (
            torch.zeros(1, dtype=torch.int8)
            if codes.zeros is None
            else codes.zeros.repeat_interleave(codes.grid.group, 1)
        )
        self.zeros += int((codes.values == middle).sum())
