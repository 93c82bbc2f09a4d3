"""A model with blocks merged into others, computed as each tensor is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from secateur.model.handle import ModelHandle
from secateur.tensors.source import Derived


class Merged(Derived):
    """A Source in which each block of `merge` has the weights `w + Σ (w_k - w)`, k over the blocks it names.

    LaCo (arXiv:2402.11187): the sum of the differences, each from the block's own weights. One tensor of
    another block is in memory at a time.
    """

    def __init__(self, model: ModelHandle, merge: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__(model.source)
        self._merge = merge
        self._prefixes = {str(block.index): block.prefix for block in model.graph.blocks}
        self._owner = {
            name: (str(block.index), name.removeprefix(block.prefix))
            for block in model.graph.blocks
            for name in block.tensors
        }

    def read(self, name: str) -> Tensor:
        """Return a tensor, float32 where others were merged into it, owned by the caller."""
        weight = self._source.read(name)
        index, rest = self._owner.get(name, ("", ""))
        others = self._merge.get(index, ())
        if not others:
            return weight
        weight = weight.float()
        total = weight.mul(1 - len(others))
        for other in others:
            total += self._source.read(self._prefixes[other] + rest).float()
        return total

    def pieces(self, name: str) -> Iterator[Tensor]:
        """Yield a tensor as consecutive runs of rows; one that others were merged into comes whole."""
        if self._merge.get(self._owner.get(name, ("", ""))[0]):
            yield self.read(name)
        else:
            yield from self._source.pieces(name)
