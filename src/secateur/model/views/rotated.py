"""A model with rotated states and rotated values of its heads, which predicts the same.

RMSNorm divides by a length, which no rotation changes. Its weights do not commute with a rotation, so they
are folded into the linears that read the normed states. The head is one of them: a tied head becomes a tensor
of its own. The second norm of Gemma's sub-blocks scales what they add to the states, and no linear can take
up that scale, so the states of such a model cannot be rotated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from secateur.core.graph import Block
from secateur.model.families import EMBED, FINAL_NORM, HEAD, Family
from secateur.model.handle import ModelHandle
from secateur.tensors.source import Derived
from secateur_runtime.errors import UsageError


@dataclass(frozen=True, slots=True)
class Rotation:
    """Orthogonal matrices, float64.

    states: `[hidden_size, hidden_size]`, multiplied by a row vector of states from the left; None for no
    rotation.
    heads: block -> `[n_kv_heads, head_dim, head_dim]`, a matrix for the values of each key-value head; blocks
    not listed are not rotated.
    """

    states: Tensor | None = None
    heads: Mapping[int, Tensor] = field(default_factory=dict)


def check_rotation(family: Family) -> None:
    """Raise UsageError if the states of such a model cannot be rotated without changing what it predicts."""
    if len(family.attn_norms) > 1:
        raise UsageError(
            f"a {family.name} block scales what it adds to the states ({family.attn_norms[1]}), which no"
            " rotation passes: use --rotate heads, or leave it out"
        )


class Rotated(Derived):
    """A Source that predicts what another does, rotated as it is read.

    One tensor and the norm before it are in memory at a time.
    """

    def __init__(self, model: ModelHandle, rotation: Rotation) -> None:
        source = model.source
        graph = model.graph
        super().__init__(source)
        self.rotation = rotation
        self._blocks = {name: block for block in graph.blocks for name in block.tensors}
        self._family = model.family
        if rotation.states is not None and graph.tied:
            self.config = {**source.config, "tie_word_embeddings": False}
            self.tensors = {**source.tensors, HEAD: source.tensors[EMBED]}
        self._head = EMBED if graph.tied else HEAD

    def read(self, name: str) -> Tensor:
        """Return a tensor, float32 where it is rotated, owned by the caller."""
        return torch.cat(list(self.pieces(name)))

    def pieces(self, name: str) -> Iterator[Tensor]:
        """Yield the rows of a tensor, a few at a time where none depends on another."""
        states = self.rotation.states
        if states is not None and name in (EMBED, HEAD):
            scale = self._scale(FINAL_NORM) if name == HEAD else torch.ones(1, dtype=torch.float64)
            for piece in self._source.pieces(self._head if name == HEAD else EMBED):
                yield ((piece.double() * scale) @ states).float()
        elif name in self._blocks:
            yield self._inside(name, self._blocks[name])
        elif states is not None and name == FINAL_NORM:
            yield self._plain(name)
        else:
            yield from self._source.pieces(name)

    def _inside(self, name: str, block: Block) -> Tensor:
        tensor = self._source.read(name)
        module, _, leaf = name.removeprefix(block.prefix).rpartition(".")
        states = self.rotation.states
        family = self._family
        if states is not None and module in (*family.attn_norms, *family.ffn_norms):
            return self._plain(name)
        turned = tensor.double()
        if states is not None and leaf == "weight" and module in (*family.qkv, *family.gate_up):
            norm = family.attn_norms if module in family.qkv else family.ffn_norms
            turned = (turned * self._scale(f"{block.prefix}{norm[0]}.weight")) @ states
        elif states is not None and module in (family.o, family.down):
            turned = states.T @ turned if leaf == "weight" else turned @ states
        if block.index in self.rotation.heads:
            turned = self._turned_heads(name, turned, block)
        return turned.float() if states is not None or block.index in self.rotation.heads else tensor

    def _turned_heads(self, name: str, tensor: Tensor, block: Block) -> Tensor:
        """Return a tensor with the values of each head, or what reads them, rotated."""
        turns = self.rotation.heads[block.index]
        size = block.shape.head_dim
        outputs = f"{block.prefix}{self._family.o}.weight"
        if name == outputs:
            each = turns.repeat_interleave(block.shape.n_heads // block.shape.n_kv_heads, 0)
            return (tensor.view(len(tensor), -1, 1, size) @ each).view(tensor.shape)
        if (start := values_start(block, name, self._family.qkv[-1])) is not None:
            rows = tensor[start:].reshape(len(turns), size, -1)
            return torch.cat([tensor[:start], (turns.mT @ rows).reshape(tensor[start:].shape)])
        return tensor

    def _scale(self, norm: str) -> Tensor:
        return self._source.read(norm).double() + self._family.norm_offset

    def _plain(self, norm: str) -> Tensor:
        """Return the weights of a norm that scales nothing."""
        return torch.full(self.tensors[norm].shape, 1.0 - self._family.norm_offset)


def values_start(block: Block, name: str, module: str) -> int | None:
    """Return the first row of the values in a tensor of `module`; None for a tensor of another module.

    module: the linear that computes the values, fused with others or not.
    """
    if name.removeprefix(block.prefix).rpartition(".")[0] != module:
        return None
    rows = next(linear.out_features for linear in block.linears if linear.module == module)
    return rows - block.shape.n_kv_heads * block.shape.head_dim
