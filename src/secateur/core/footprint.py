"""Size of a pruned model, counted from its plan before a byte is written."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from secateur.core.graph import Block, Graph, Group, Slice
from secateur_runtime.decoder.block_shape import BlockShape

Keep = Mapping[str, Collection[int]]
Along = dict[tuple[str, int], list[tuple[Slice, Group]]]


@dataclass(frozen=True, slots=True)
class Footprint:
    """Sizes of a model.

    parameters: stored ones (a tied head counts once); block_parameters: those of the decoder blocks.
    weight_bytes: of the stored weights, headers of files not counted.
    kv_values: numbers that the KV cache holds for each token, every block keeping the whole context.
    """

    parameters: int
    block_parameters: int
    weight_bytes: int
    kv_values: int

    def kv_bytes_per_token(self, width: int = 2) -> int:
        """Return the bytes of KV cache for a token whose numbers take `width` bytes each."""
        return self.kv_values * width


def footprint(graph: Graph, keep: Keep, drop: Collection[str], width: int) -> Footprint:
    """Return the sizes of the model of `graph` after a plan is applied.

    keep, drop: as in `Plan`. width: bytes of one stored weight.
    """
    inside = {name for block in graph.blocks for name in block.tensors}
    counts = kept_counts(graph, keep, drop)
    total = sum(counts.values())
    blocks = sum(count for name, count in counts.items() if name in inside)
    return Footprint(
        total, blocks, total * width, sum(_kv_values(block, keep, drop) for block in graph.blocks)
    )


def kept_counts(graph: Graph, keep: Keep, drop: Collection[str]) -> dict[str, int]:
    """Return the number of retained elements by tensor; tensors that a plan removes are not listed."""
    removed = {
        name for block in graph.blocks for part in dropped_halves(block, drop) for name in block.halves[part]
    }
    lost = _lost(group for group in graph.groups.values() if group.name in keep)
    counts: dict[str, int] = {}
    for name, info in graph.tensors.items():
        if name not in removed:
            counts[name] = 1
            for dim, size in enumerate(info.shape):
                counts[name] *= size - _missing(lost.get((name, dim), []), keep)
    return counts


def dropped_halves(block: Block, drop: Collection[str]) -> frozenset[str]:
    """Return the sub-blocks of a block that a plan drops: `attn`, `ffn`."""
    both = str(block.index) in drop
    return frozenset(part for part in ("attn", "ffn") if both or f"{block.index}.{part}" in drop)


def kept_shape(block: Block, keep: Keep, drop: Collection[str]) -> BlockShape:
    """Return the widths of a block after a plan is applied.

    Query heads are removed with their key-value head.
    """
    shape = block.shape
    dropped = dropped_halves(block, drop)
    inner = 0 if "ffn" in dropped else len(keep.get(f"{block.index}.ffn", range(shape.intermediate_size)))
    if "attn" in dropped or not shape.n_heads:
        return replace(shape, n_heads=0, n_kv_heads=0, intermediate_size=inner)
    groups = frozenset(keep.get(f"{block.index}.kv", range(shape.n_kv_heads)))
    each = shape.n_heads // shape.n_kv_heads
    heads = sum(head // each in groups for head in keep.get(f"{block.index}.head", range(shape.n_heads)))
    return replace(shape, n_heads=heads, n_kv_heads=len(groups), intermediate_size=inner)


def _kv_values(block: Block, keep: Keep, drop: Collection[str]) -> int:
    shape = kept_shape(block, keep, drop)
    return 2 * shape.n_kv_heads * shape.head_dim


def _lost(groups: Iterable[Group]) -> Along:
    """Return, by tensor and dimension, the slices along which units are removed."""
    found: Along = {}
    for group in groups:
        for part in group.slices:
            found.setdefault((part.tensor, part.dim), []).append((part, group))
    return found


def _missing(parts: list[tuple[Slice, Group]], keep: Keep) -> int:
    """Count the indices that are removed along one dimension.

    Slices of two groups may own the same index, which counts once.
    """
    if len({group.name for _, group in parts}) < 2:
        return sum((group.size - len(keep[group.name])) * part.block for part, group in parts)
    return len({index for part, group in parts for index in _indices(part, group, keep)})


def _indices(part: Slice, group: Group, keep: Keep) -> Iterator[int]:
    for unit in set(range(group.size)).difference(keep[group.name]):
        start = part.offset + unit * part.block
        yield from range(start, start + part.block)
