"""Open a model as an elastic one that runs in the C kernels."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.adapt.elastic.quantized_layout import INT4, Coded
from secateur.adapt.elastic.weights import SCALES, part_name, prepare
from secateur.core.graph import Block, Group, Slice
from secateur.core.ladder_plan import check_ladder
from secateur.model.families import EMBED, FINAL_NORM, HEAD
from secateur.model.handle import ModelHandle
from secateur.model.native_support import check_native, native_names
from secateur.model.rotary import frequencies, sight, turns
from secateur.runtime.elastic.model import Elastic
from secateur_runtime.decoder.block_shape import BlockShape
from secateur_runtime.decoder.elastic_decoder import Kernels, NativeSubBlock, Strip, SubBlockPart
from secateur_runtime.decoder.native_decoder import BlockWeights, Decoder, Weights
from secateur_runtime.decoder.prefix_weights import FileSpan
from secateur_runtime.decoder.releasable_memory import WeightFile
from secateur_runtime.errors import UsageError, nearest
from secateur_runtime.kernels.kernel_weight import Weight, settle
from secateur_runtime.kernels.library import require_kernels
from secateur_runtime.kernels.thread_pool import ThreadPool
from secateur_runtime.ladder import Ladder

KINDS = {"bf16": torch.bfloat16, "int8": torch.int8, "int4": INT4, "f32": torch.float32}
"""Types of stored matrices, by the name on the command line."""
KV = (torch.float32, torch.float16)
"""Types of keys and values."""


def open_kernels(
    model: ModelHandle,
    ladder: Ladder,
    weights: Path,
    *,
    kind: str = "bf16",
    level: int = 0,
    kv: torch.dtype = torch.float32,
    threads: int = 1,
) -> Elastic:
    """Return the elastic model of a ladder, at a level, in the kernels.

    weights: the file it reads from, written first if it does not exist. kind: type of weights, a key of
    `KINDS`. level: level to start at. kv: type of keys and values, one of `KV`. threads: of the kernels.
    Raises LadderError if the ladder was made for another model or lacks the level, SourceError or OutputError
    as `prepare` does, UnsupportedModelError for a model that the kernels cannot run, UsageError for a kind
    that is not known, or if there are no kernels.
    """
    library = check_kernels(model, kind)
    check_ladder(ladder, model.graph, model.digest)
    ladder.at(level)
    body = _KernelBuilder(
        model, KINDS[kind], prepare(model, ladder, weights, KINDS[kind]), WeightFile(weights)
    ).body(library, threads)
    return Elastic(body, ladder, level=level, kv=kv)


def check_kernels(model: ModelHandle, kind: str) -> ctypes.CDLL:
    """Return the kernels; raises as `open_kernels` if they are missing or cannot run the model."""
    if kind not in KINDS:
        raise UsageError(
            f"--type {kind} is not one of an elastic model in the kernels{nearest(kind, KINDS)}: use"
            f" {', '.join(KINDS)}"
        )
    check_native(model.source.ref, model.family, model.config)
    return require_kernels("--backend elastic needs none")


class _KernelBuilder:
    """Builds a decoder from stored weights; no unit is in memory yet."""

    def __init__(
        self, model: ModelHandle, dtype: torch.dtype, stored: Mapping[str, FileSpan], file: WeightFile
    ) -> None:
        self._dtype = dtype
        self._graph = model.graph
        self._config = model.config
        self._stored = stored
        self._file = file
        self._family = model.family

    def body(self, library: ctypes.CDLL, threads: int) -> Kernels:
        """Build the model; only the tensors that no level changes are read."""
        graph = self._graph
        radians, scale = frequencies(self._config)(1)
        embed = self._fixed(EMBED)
        weights = Weights(
            embed=embed,
            head=embed if graph.tied else self._fixed(HEAD),
            final_norm=self._vector(FINAL_NORM),
            epsilon=self._config.rms_norm_eps,
            frequencies=radians.float().numpy(),
            scale=float(scale),
            blocks=tuple(map(self._block, graph.blocks)),
        )
        decoder = Decoder(library, weights, ThreadPool(library, threads))
        halves = {
            group.name: self._sub_block(decoder, block, group)
            for block in graph.blocks
            for group in block.groups
            if group.kind in ("kv", "ffn")
        }
        sizes = [(block.shape.n_kv_heads, block.shape.head_dim) for block in graph.blocks]
        return Kernels(
            decoder=decoder, halves=halves, sizes=sizes, limit=int(self._config.max_position_embeddings)
        )

    def _block(self, block: Block) -> BlockWeights:
        """Return a block with the tensors that no level changes: norms and output biases."""
        names = native_names(self._family, block.prefix)
        return BlockWeights(
            shape=BlockShape(0, 0, block.shape.head_dim, 0),
            turns=turns(self._config, block.index),
            window=sight(self._config, block.index),
            vectors={name: self._vector(tensor) for tensor, name in names.items() if tensor in self._stored},
        )

    def _sub_block(self, decoder: Decoder, block: Block, group: Group) -> NativeSubBlock:
        names = native_names(self._family, block.prefix)
        parts = [
            self._part(part_name(group, place), names[part.tensor], group.size, part)
            for place, part in enumerate(group.slices)
        ]
        return NativeSubBlock(
            decoder,
            block.index,
            self._file,
            parts,
            block.shape.n_heads // block.shape.n_kv_heads if group.kind == "kv" else 0,
        )

    def _part(
        self, stored: str, name: str, units: int, part: Slice, *, outside: bool = False
    ) -> SubBlockPart:
        """Return a weight whose `units` units each own the slice `part`."""
        values = self._stored[stored]
        across = part.dim == 1
        if stored + SCALES not in self._stored:
            return SubBlockPart(name=name, values=Strip(stored=values, block=part.block, across=across))
        inputs = units * part.block if across else self._graph.tensors[part.tensor].shape[1]
        coded = Coded.of(self._dtype, inputs, outside=outside)
        assert coded is not None
        shared = (coded.chunk, (coded.group, 1)) if across else ((1, 1), (1, 1))
        codes, scales = (
            Strip(stored=self._stored[each], block=part.block, group=group, across=across)
            for each, group in zip((stored, stored + SCALES), shared, strict=True)
        )
        return SubBlockPart(
            name=name,
            values=codes,
            scales=scales,
            bits=coded.bits,
            group=0 if coded.group == inputs else coded.group,
            inputs=inputs,
        )

    def _fixed(self, tensor: str) -> Weight:
        """Return a matrix that no level changes."""
        part = self._part(tensor, tensor, 1, Slice(tensor, 0), outside=True)
        weight = part.weight(0, *(self._whole(strip.stored) for strip in part.strips))
        settle([weight])
        return weight

    def _vector(self, tensor: str) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self._whole(self._stored[tensor]).numpy()
        return found

    def _whole(self, stored: FileSpan) -> Tensor:
        array = torch.empty(stored.shape, dtype=stored.dtype)
        Strip(stored=stored, block=1).read(self._file, array, 0, len(array))
        return array
