"""The memory of an elastic model: weights, KV cache and activations, computed from widths alone."""

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
"""Group (`3.kv`, `3.ffn`) -> retained units; 0 for a removed sub-block; missing groups are whole."""


@dataclass(frozen=True, slots=True)
class MemoryModel:
    """Counts the bytes of a model.

    dtype: type of stored matrices (vectors are float32); int8 and int4 mean codes with scales. kv: type of
    keys and values.
    """

    graph: Graph
    dtype: torch.dtype = torch.bfloat16
    kv: torch.dtype = torch.float32

    def weights(self, kept: Kept) -> int:
        """Return the bytes of the retained weights."""
        fixed = sum(self._bytes(name) for name in self.graph.tensors)
        return fixed - sum(
            self.unit_bytes(group) * (group.size - kept.get(group.name, group.size))
            for group in self._groups()
        )

    def unit_bytes(self, group: Group) -> int:
        """Return the bytes of the weights of one unit of a group."""
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
        """Return the bytes of the KV cache in whole pages, as it is allocated.

        batch: number of sequences. tokens: tokens of each sequence.
        """
        rows = (
            (kept.get(f"{block.index}.kv", block.shape.n_kv_heads), block.shape.head_dim)
            for block in self.graph.blocks
        )
        return batch * sum(
            2 * groups * whole_pages(tokens * width * self.kv.itemsize) for groups, width in rows
        )

    def activations(self, batch: int, tokens: int) -> int:
        """Return the most bytes that one pass takes in addition to weights and caches.

        batch: sequences that decode. tokens: tokens of a prompt that is read in the same pass, or 0.
        """
        graph = self.graph
        rows = max(batch, min(tokens, CHUNK))
        inner = max(block.shape.intermediate_size for block in graph.blocks)
        heads = max(block.shape.n_heads * block.shape.head_dim for block in graph.blocks)
        # An FFN holds gate, up, their product and the activated gate; attention holds its queries twice and
        # its result twice.
        between = rows * (4 * max(inner, heads) + 4 * graph.hidden_size)
        seen = rows * tokens * max(block.shape.n_heads for block in graph.blocks) if tokens else 0
        return 4 * (SCRATCH + between + seen + 2 * batch * graph.vocab_size)

    def total(self, kept: Kept, batch: int, tokens: int) -> int:
        """Return the bytes of weights, KV cache and activations.

        batch: number of sequences. tokens: tokens of each sequence.
        """
        return self.weights(kept) + self.cache(kept, batch, tokens) + self.activations(batch, tokens)

    def flops(self, kept: Kept) -> int:
        """Return the operations for one decoded token in all linear layers, two for each weight.

        Attention to earlier tokens is not counted.
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
    """Counts the bytes of a model in the C kernels."""

    def kv_values(self, kept: Kept) -> int:
        """Return how many numbers the cache holds for each token of a sequence."""
        blocks = self.graph.blocks
        return sum(
            2 * kept.get(f"{block.index}.kv", block.shape.n_kv_heads) * in_lanes(block.shape.head_dim)
            for block in blocks
        )

    def activations(self, batch: int, tokens: int) -> int:
        """Return the most bytes that one pass takes in addition to weights and caches.

        Prompts are read a few tokens at a time, and their scratch memory is not released.
        """
        graph = self.graph
        inner = max(block.shape.intermediate_size for block in graph.blocks)
        queries = max(block.shape.n_heads * block.shape.head_dim for block in graph.blocks)
        keys = max(block.shape.n_kv_heads * block.shape.head_dim for block in graph.blocks)
        # States, queries and attention results, keys and values, gate and up; the widest of them once more in
        # the layout of the kernels, with scales and alignment to cache lines; and angles.
        between = 2 * (graph.hidden_size + queries + keys + inner) + 1.25 * max(
            graph.hidden_size, queries, inner
        )
        angles = max(block.shape.head_dim for block in graph.blocks)
        return 4 * (round(ROWS * (between + angles)) + 2 * batch * graph.vocab_size)
