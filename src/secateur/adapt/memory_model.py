"""What an elastic model takes.

weights, keys and values, and what lies between blocks, counted from widths alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from secateur.adapt.elastic.quantized_layout import Coded
from secateur.core.graph import Graph, Group
from secateur.runtime.elastic.model import CHUNK
from secateur_runtime.decoder.native_decoder import ROWS, in_lanes
from secateur_runtime.decoder.prefix_weights import SCRATCH
from secateur_runtime.decoder.releasable_memory import whole_pages

Kept = Mapping[str, int]
"""Group (`3.kv`, `3.ffn`) -> units that are kept; 0 where that half of the block is gone; groups not named
are whole.
"""


@dataclass(frozen=True, slots=True)
class MemoryModel:
    """Counts bytes of a model.

    dtype: of stored matrices (vectors are float32), int8 and int4 for codes with scales; kv: of keys and
    values.
    """

    graph: Graph
    dtype: torch.dtype = torch.bfloat16
    kv: torch.dtype = torch.float32

    def weights(self, kept: Kept) -> int:
        """Return bytes of the weights that are held."""
        fixed = sum(self._bytes(name) for name in self.graph.tensors)
        return fixed - sum(
            self.unit_bytes(group) * (group.size - kept.get(group.name, group.size))
            for group in self._groups()
        )

    def unit_bytes(self, group: Group) -> int:
        """Return bytes of the weights that one unit of a group owns."""
        return sum(
            self._bytes(part.tensor) // self.graph.tensors[part.tensor].shape[part.dim] * part.block
            for part in group.slices
        )

    def kv_values(self, kept: Kept) -> int:
        """Return how many numbers the cache holds for each token of a sequence."""
        return sum(
            2 * kept.get(f"{block.index}.kv", block.shape.n_kv_heads) * block.shape.head_dim
            for block in self.graph.blocks
        )

    def cache(self, kept: Kept, batch: int, tokens: int) -> int:
        """Return bytes of keys and values of `batch` sequences of `tokens` tokens each, in whole pages as they are allocated."""
        rows = (
            (kept.get(f"{block.index}.kv", block.shape.n_kv_heads), block.shape.head_dim)
            for block in self.graph.blocks
        )
        return batch * sum(
            2 * groups * whole_pages(tokens * width * self.kv.itemsize) for groups, width in rows
        )

    def activations(self, batch: int, tokens: int) -> int:
        """Return bytes that one pass takes at most, beside weights and caches.

        batch: sequences that decode; tokens: of a prompt that is read meanwhile, or 0.
        """
        graph = self.graph
        rows = max(batch, min(tokens, CHUNK))
        inner = max(block.shape.intermediate_size for block in graph.blocks)
        heads = max(block.shape.n_heads * block.shape.head_dim for block in graph.blocks)
        # An FFN holds gate, up, their product and what it made of gate; attention its queries, twice, and
        # what it found, twice.
        between = rows * (4 * max(inner, heads) + 4 * graph.hidden_size)
        seen = rows * tokens * max(block.shape.n_heads for block in graph.blocks) if tokens else 0
        return 4 * (SCRATCH + between + seen + 2 * batch * graph.vocab_size)

    def total(self, kept: Kept, batch: int, tokens: int) -> int:
        """Return bytes of weights, of `batch` sequences of `tokens` tokens each, and of the passes that read and extend them."""
        return self.weights(kept) + self.cache(kept, batch, tokens) + self.activations(batch, tokens)

    def flops(self, kept: Kept) -> int:
        """Return the operations for one decoded token in all linears, two for each weight.

        Attention to earlier tokens not counted.
        """
        head = self.graph.vocab_size * self.graph.hidden_size
        inside = sum(kept.get(group.name, group.size) * self._unit_weights(group) for group in self._groups())
        return 2 * (head + inside)

    def _unit_weights(self, group: Group) -> int:
        tensors = self.graph.tensors
        parts = (part for part in group.slices if len(tensors[part.tensor].shape) > 1)
        return sum(part.block * tensors[part.tensor].shape[1 - part.dim] for part in parts)

    def _bytes(self, name: str) -> int:
        info = self.graph.tensors[name]
        if len(info.shape) == 1:
            return info.numel * torch.float32.itemsize
        coded = Coded.of(self.dtype, info.shape[1], outside=name in self.graph.outside)
        return coded.bytes(info.shape[0]) if coded else info.numel * self.dtype.itemsize

    def _groups(self) -> list[Group]:
        return [group for block in self.graph.blocks for group in block.groups if group.kind in ("kv", "ffn")]


class KernelMemory(MemoryModel):
    """Counts bytes of a model in the C kernels."""

    def kv_values(self, kept: Kept) -> int:
        """Return how many numbers the cache holds for each token of a sequence."""
        blocks = self.graph.blocks
        return sum(
            2 * kept.get(f"{block.index}.kv", block.shape.n_kv_heads) * in_lanes(block.shape.head_dim)
            for block in blocks
        )

    def activations(self, batch: int, tokens: int) -> int:
        """Return bytes that one pass takes at most, beside weights and caches.

        Prompts are read a few tokens at a time, and what that works in is kept.
        """
        graph = self.graph
        inner = max(block.shape.intermediate_size for block in graph.blocks)
        queries = max(block.shape.n_heads * block.shape.head_dim for block in graph.blocks)
        keys = max(block.shape.n_kv_heads * block.shape.head_dim for block in graph.blocks)
        # States, queries and what was found, keys and values, gate and up, and the widest of them once more
        # as the kernels read it, with scales and what begins on a line of its own; and angles.
        between = 2 * (graph.hidden_size + queries + keys + inner) + 1.25 * max(
            graph.hidden_size, queries, inner
        )
        angles = max(block.shape.head_dim for block in graph.blocks)
        return 4 * (round(ROWS * (between + angles)) + 2 * batch * graph.vocab_size)
