"""What a model is made of: tensors, blocks, prunable linears, and groups of coupled slices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from secateur_runtime.decoder.block_shape import BlockShape

Kind = Literal["ffn", "kv", "head", "hidden", "vocab"]
_HALVES: Mapping[Kind, str] = {"kv": "attn", "head": "attn", "ffn": "ffn", "hidden": "", "vocab": ""}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Shape and stored type of one tensor.

    shape: as torch stores it, `[out_features, in_features]` for a linear.
    dtype: name of the stored type, such as `BF16`.
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def numel(self) -> int:
        """Number of elements."""
        total = 1
        for size in self.shape:
            total *= size
        return total


@dataclass(frozen=True, slots=True)
class Slice:
    """Unit `i` owns `[offset + i*block, offset + (i+1)*block)` of `tensor` along `dim`."""

    tensor: str
    dim: int
    block: int = 1
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """`size` units; removing a unit removes it from every slice."""

    name: str
    kind: Kind
    size: int
    slices: tuple[Slice, ...]

    @property
    def half(self) -> str:
        """The sub-block that the group belongs to, `attn` or `ffn`; empty for the whole model."""
        return _HALVES[self.kind]


@dataclass(frozen=True, slots=True)
class Linear:
    """A prunable weight: `stage` orders the linears of a block; those of one stage share their input."""

    tensor: str
    module: str
    stage: int
    out_features: int
    in_features: int


@dataclass(frozen=True, slots=True)
class Block:
    """One decoder block.

    tensors: full names, as stored.
    linears: prunable ones, in stage order.
    groups: `kv`, `head` (only where a key-value head serves several query heads) and `ffn`. The last slice
    of each lies on the inputs of the last linear of its sub-block.
    halves: the tensors of the sub-blocks `attn` and `ffn`, norms included.
    """

    index: int
    prefix: str
    shape: BlockShape
    tensors: tuple[str, ...]
    linears: tuple[Linear, ...]
    groups: tuple[Group, ...]
    halves: Mapping[str, tuple[str, ...]]

    @property
    def stages(self) -> tuple[tuple[Linear, ...], ...]:
        """The linears in the order of a forward pass; those of one stage share their input."""
        numbers = sorted({linear.stage for linear in self.linears})
        return tuple(tuple(linear for linear in self.linears if linear.stage == number) for number in numbers)


@dataclass(frozen=True, slots=True)
class Graph:
    """A model as its stored tensors describe it.

    tensors: every stored tensor. outside: names of those outside the blocks.
    tied: whether the head is the embedding.
    hidden: the channels of the residual stream, one selection for embeddings, norms, linears and head.
    vocab: the tokens, rows of embeddings and head.
    """

    family: str
    hidden_size: int
    vocab_size: int
    tied: bool
    tensors: Mapping[str, TensorInfo]
    blocks: tuple[Block, ...]
    outside: tuple[str, ...]
    hidden: Group
    vocab: Group

    @property
    def groups(self) -> dict[str, Group]:
        """Every group by name: those of the blocks, `hidden` and `vocab`."""
        return {
            group.name: group
            for group in (
                *(group for block in self.blocks for group in block.groups),
                self.hidden,
                self.vocab,
            )
        }

    @property
    def linears(self) -> tuple[Linear, ...]:
        """Every prunable linear, block by block."""
        return tuple(linear for block in self.blocks for linear in block.linears)

    @property
    def parameters(self) -> int:
        """Number of stored parameters (a tied head counts once)."""
        return sum(info.numel for info in self.tensors.values())
