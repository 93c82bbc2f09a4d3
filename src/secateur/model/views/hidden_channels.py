"""A model seen with fewer hidden channels, rescaled so that it computes what the whole one does.

The whole one computes with the removed channels at zero. RMSNorm divides by the number of channels n.
Without the zeros n becomes n', and `x w / sqrt(S/n + eps) = x (w sqrt(n/n')) / sqrt(S/n' + eps n/n')`: the
weights and the epsilon of every norm are rescaled. Norms of single heads share that epsilon. It is far below
the mean square of a head, so their weights stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from secateur.core.graph import Graph
from secateur.model.families import EMBED, FINAL_NORM, Family
from secateur.model.handle import ModelHandle
from secateur.tensors.source import Derived


@dataclass(frozen=True, slots=True)
class Fold:
    """A weight `w` that is stored as `(w + offset) * factor - offset`."""

    factor: float
    offset: float = 0.0

    def stored(self, weight: Tensor) -> Tensor:
        """Return the values to store for a weight, float32."""
        return (weight.float() + self.offset) * self.factor - self.offset

    def meant(self, stored: Tensor) -> Tensor:
        """Return the weight that stored values stand for, float32."""
        return (stored.float() + self.offset) / self.factor - self.offset


def hidden_folds(graph: Graph, family: Family, kept: int) -> dict[str, Fold]:
    """Return, by tensor, how a model of `kept` hidden channels stores what depends on their number."""
    factor = sqrt(graph.hidden_size / kept)
    if factor == 1:
        return {}
    norms = [
        part.tensor
        for part in graph.hidden.slices
        if len(graph.tensors[part.tensor].shape) == 1 and part.tensor.endswith("norm.weight")
    ]
    folds = dict.fromkeys(norms, Fold(factor, family.norm_offset))
    if family.scaled_embeddings:
        folds[EMBED] = Fold(factor)
        if graph.tied:
            # The head is the rescaled embedding: it brings the factor that the norm before it would have had.
            del folds[FINAL_NORM]
    return folds


class Narrowed(Derived):
    """A Source with the values that a model of fewer hidden channels will hold.

    Its tensors have their whole shape, with zeros in the removed channels. Weights outside the blocks, and
    those that are rescaled, are what their stored values stand for in the type `dtype`.

    kept: the channels that stay, ascending. dtype: the type that it is stored in.
    """

    def __init__(self, model: ModelHandle, kept: tuple[int, ...], dtype: torch.dtype) -> None:
        graph = model.graph
        super().__init__(model.source)
        self.kept = kept
        self.dtype = dtype
        self.folds = hidden_folds(graph, model.family, len(kept))
        self._outside = frozenset(graph.outside)
        self._slices = {part.tensor: part for part in graph.hidden.slices}
        alive = torch.zeros(graph.hidden_size, dtype=torch.bool)
        alive[list(kept)] = True
        self._removed = (~alive).nonzero().squeeze(1)

    def stored(self, name: str) -> Tensor:
        """Return a tensor as it is stored, but with every channel.

        It is never in memory whole in another type.
        """
        tensor = torch.empty(self.tensors[name].shape, dtype=self.dtype)
        start = 0
        for piece in self._source.pieces(name):
            tensor[start : start + len(piece)] = self._as_stored(name, piece)
            start += len(piece)
        return tensor

    def read(self, name: str) -> Tensor:
        """Return a tensor to compute with, owned by the caller."""
        return self._silenced(name, self._source.read(name))

    def pieces(self, name: str) -> Iterator[Tensor]:
        """Yield the rows of a tensor to compute with; whole where the rows are channels."""
        if name in self._slices and self._slices[name].dim == 0:
            yield self.read(name)
            return
        for piece in self._source.pieces(name):
            yield self._silenced(name, piece)

    def _as_stored(self, name: str, weight: Tensor) -> Tensor:
        return (self.folds[name].stored(weight) if name in self.folds else weight).to(self.dtype)

    def _silenced(self, name: str, weight: Tensor) -> Tensor:
        if name in self._outside or name in self.folds:
            weight = self._as_stored(name, weight)
        if name in self.folds:
            weight = self.folds[name].meant(weight)
        if name in self._slices:
            weight.index_fill_(self._slices[name].dim, self._removed, 0)
        return weight
