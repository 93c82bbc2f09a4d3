"""The body of an elastic model in the C kernels.

Its sub-blocks are as wide as the level says, and its caches may lack some attention.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch
from torch import Tensor

from secateur_runtime.decoder.kv_cache import ElasticCache
from secateur_runtime.decoder.native_decoder import (
    ATTENTION,
    FEED_FORWARD,
    LANES,
    Decoder,
    KeysValues,
    in_lanes,
    pointers,
)
from secateur_runtime.decoder.prefix_weights import SCRATCH, FileSpan
from secateur_runtime.decoder.releasable_memory import WeightFile, whole_pages
from secateur_runtime.kernels.kernel_weight import ArrayMemory, Laid, Weight

_POSITIONS = 64
"""The capacity of a cache is a multiple of this many positions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """An array of a sub-block, whose length follows the number of units.

    stored: where it lies in the file, unit after unit. block: inputs or outputs that a unit owns.
    group: how many inputs or outputs share indices of the first dimension in the file, and how many indices.
    across: whether that dimension is the last one of the array in memory.
    """

    stored: FileSpan
    block: int
    group: tuple[int, int] = (1, 1)
    across: bool = False

    def count(self, units: int) -> int:
        """Return how many indices `units` units own."""
        owners, indices = self.group
        return -(-units * self.block // owners) * indices

    def shape(self, units: int) -> tuple[int, ...]:
        """Return the shape of the array with `units` units."""
        count = self.count(units)
        rest = self.stored.shape[1:]
        return (*rest, count) if self.across else (count, *rest)

    def bytes(self, units: int) -> int:
        """Return the bytes of the array with `units` units."""
        return prod(self.shape(units)) * self.stored.dtype.itemsize

    def prefix(self, array: Tensor, count: int) -> Tensor:
        """Return the first `count` indices of an array."""
        return array.narrow(1 if self.across else 0, 0, count)

    def read(self, file: WeightFile, array: Tensor, begin: int, end: int) -> None:
        """Fill the indices from `begin` to `end`; raises SourceError if the file is too short."""
        size = self.stored.row_bytes
        if not self.across:
            file.read(self.stored.offset + begin * size, _bytes(array[begin:end]))
            return
        some = max(1, SCRATCH // self.stored.shape[1])
        for start in range(begin, end, some):
            rows = torch.empty(min(some, end - start), self.stored.shape[1], dtype=self.stored.dtype)
            file.read(self.stored.offset + start * size, _bytes(rows))
            array[:, start : start + len(rows)].copy_(rows.T)


def _bytes(array: Tensor) -> memoryview:
    return array.reshape(-1).view(torch.uint8).numpy().data


@dataclass(frozen=True, slots=True, kw_only=True)
class SubBlockPart:
    """A weight or a bias of a sub-block, by its name in `BlockWeights`.

    scales: scales of a quantized weight of `bits` bits. group: inputs that share a scale, 0 for all.
    inputs: number of inputs of the whole weight.
    """

    name: str
    values: Strip
    scales: Strip | None = None
    bits: int = 0
    group: int = 0
    inputs: int = 0

    @property
    def strips(self) -> tuple[Strip, ...]:
        """The arrays of the part."""
        return (self.values,) if self.scales is None else (self.values, self.scales)

    def weight(self, units: int, values: Tensor, scales: Tensor | None = None) -> Weight:
        """Return the weight with `units` units as the kernels read it."""
        if scales is None:
            return Weight(values)
        return Weight(
            Laid(
                values,
                scales,
                self.bits,
                units * self.values.block if self.values.across else self.inputs,
                self.group,
            )
        )


class NativeSubBlock:
    """Attention or FFN of block `index` of a decoder, in one piece of memory.

    Changing the width makes a new piece. To shrink takes the memory of one more array while that is copied.
    served: query heads for each key-value head, 0 for an FFN.
    """

    def __init__(
        self, decoder: Decoder, index: int, file: WeightFile, parts: Sequence[SubBlockPart], served: int
    ) -> None:
        self.units = 0
        self._decoder = decoder
        self._index = index
        self._file = file
        self._parts = tuple(parts)
        self._served = served
        self._strips = [strip for part in parts for strip in part.strips]
        self._piece = ArrayMemory([])
        self._arrays = list[Tensor]()

    def hold(self, units: int) -> int:
        """Hold `units` units in memory and compute with them.

        Returns the bytes that this frees; negative if it takes memory. Raises SourceError if the file is
        too short; then nothing has changed.
        """
        if units == self.units:
            return 0
        piece = ArrayMemory([strip.bytes(units) for strip in self._strips] if units else [])
        arrays = [self._array(piece, place, units) for place in range(len(self._strips))] if units else []
        freed = sum(strip.bytes(self.units) - strip.bytes(units) for strip in self._strips)
        self._show(units, arrays)
        self.units = units
        self._piece = piece
        self._arrays = arrays
        return freed

    def _array(self, piece: ArrayMemory, place: int, units: int) -> Tensor:
        """Return one array in new memory: the part in memory is copied, and the rest is read."""
        strip = self._strips[place]
        array = piece.array(place, strip.stored.dtype, strip.shape(units))
        had = strip.count(self.units)
        wanted = strip.count(units)
        if had:
            strip.prefix(array, min(had, wanted)).copy_(strip.prefix(self._arrays[place], min(had, wanted)))
        if wanted > had:
            strip.read(self._file, array, had, wanted)
        if units < self.units:
            # Nothing is read, so nothing can fail: the old memory need not wait for the other arrays.
            self._piece.release(place)
        return array

    def _show(self, units: int, arrays: Sequence[Tensor]) -> None:
        """Make the decoder compute with these arrays."""
        block = self._decoder.weights.blocks[self._index]
        found = list[tuple[SubBlockPart, Sequence[Tensor]]]()
        place = 0
        for part in self._parts if units else ():
            found.append((part, arrays[place : place + len(part.strips)]))
            place += len(part.strips)
        names = ATTENTION if self._served else FEED_FORWARD
        mine = {*names, *(f"{name}_bias" for name in names[:-1])}
        matrices: dict[str, Weight] = {
            name: weight for name, weight in block.matrices.items() if name not in mine
        }
        vectors = {name: vector for name, vector in block.vectors.items() if name not in mine}
        for part, own in found:
            if part.name in names:
                matrices[part.name] = part.weight(units, *own)
            else:
                vectors[part.name] = own[0].numpy()
        heads = (
            {"n_heads": units * self._served, "n_kv_heads": units}
            if self._served
            else {"intermediate_size": units}
        )
        self._decoder.change(
            self._index,
            replace(block, shape=replace(block.shape, **heads), matrices=matrices, vectors=vectors),
        )


class KernelCache(ElasticCache):
    """Keys and values in the layout of the kernels. dtype: float32 or float16."""

    def __init__(
        self,
        groups: Sequence[int],
        sizes: Sequence[tuple[int, int]],
        limit: int,
        dtype: torch.dtype,
        closing: Callable[[ElasticCache], int],
    ) -> None:
        wide = [(heads, in_lanes(width)) for heads, width in sizes]
        super().__init__(groups, wide, -(-limit // _POSITIONS) * _POSITIONS, dtype, closing)
        self._seen = (ctypes.c_int32 * len(groups))(*groups)
        self._places = [
            pointers([tensor.data_ptr() for tensor in tensors]) for tensors in (self._keys, self._values)
        ]
        keys, values = map(ctypes.addressof, self._places)
        self.struct = KeysValues(
            self.limit, int(dtype == torch.float16), keys, values, ctypes.addressof(self._seen)
        )

    def shrink(self, block: int, groups: int) -> int:
        """Forget all but the first `groups` groups of a block; return the bytes freed."""
        freed = super().shrink(block, groups)
        self._seen[block] = self.groups[block]
        return freed

    def _held(self, block: int, groups: int) -> int:
        # Keys of a few positions are interleaved, so these positions take their pages together.
        return 2 * groups * whole_pages(-(-self.tokens // LANES) * LANES * self._row[block])


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """A body of an elastic model (see `Body`) whose sub-blocks fill the blocks of a decoder."""

    decoder: Decoder
    halves: Mapping[str, NativeSubBlock]
    sizes: Sequence[tuple[int, int]]
    limit: int

    @property
    def vocab_size(self) -> int:
        """Number of tokens in the vocabulary."""
        return self.decoder.weights.head.rows

    def cache(
        self, groups: Sequence[int], limit: int, kv: torch.dtype, closing: Callable[[ElasticCache], int]
    ) -> KernelCache:
        """Return a cache for one request.

        groups: key-value groups that it uses in each block. limit: most tokens. kv: type of keys and values.
        closing: called when the cache is closed.
        """
        return KernelCache(groups, self.sizes, limit, kv, closing)

    def forward(self, requests: Sequence[tuple[ElasticCache, Sequence[int]]]) -> Tensor:
        """Read the new tokens of every request.

        Returns the logits after the last token of each, `[requests, vocab_size]`.
        """
        found = np.empty((len(requests), self.vocab_size), np.float32)
        single = [place for place, (_, tokens) in enumerate(requests) if len(tokens) == 1]
        for places in (single, *([place] for place in range(len(requests)) if place not in single)):
            rows = [row for place in places for row in self._rows(*requests[place])]
            if rows:
                found[places] = self.decoder.read(rows, len(places))
        for cache, tokens in requests:
            cache.tokens += len(tokens)
        return torch.from_numpy(found)

    def _rows(self, cache: ElasticCache, tokens: Sequence[int]) -> list[tuple[int, int, KeysValues]]:
        assert isinstance(cache, KernelCache)
        return [(token, position, cache.struct) for position, token in enumerate(tokens, cache.tokens)]
