"""Sub-blocks (attention or FFN) whose width follows the level."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import rms_norm

from secateur.runtime.elastic.attention import Attending, Sight, rotated
from secateur_runtime.decoder.prefix_weights import Columns, Prefix, Rows


@dataclass(frozen=True, slots=True)
class Norm:
    """Scale by the root of the mean square over the last dimension, and by a weight, `[width]`."""

    weight: Tensor
    epsilon: float

    def __call__(self, x: Tensor) -> Tensor:
        """Return `x`, normed."""
        return rms_norm(x, (len(self.weight),), self.weight, self.epsilon)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The weights of a sub-block.

    held: all weights that are resized. norms: the norm before it and, in some families, the one after it.
    rows: its input matrices: q, k and v, or gate and up. columns: its output matrix.
    """

    held: Sequence[Prefix]
    norms: Sequence[Norm]
    rows: Sequence[Rows]
    columns: Columns


class SubBlock(ABC):
    """Attention or FFN; units: how many it computes with now. Callers skip it where that is 0."""

    def __init__(self, parts: Parts) -> None:
        self.units = 0
        self._parts = parts

    def hold(self, units: int) -> int:
        """Keep `units` units in memory and compute with them.

        Return the bytes that this frees (negative: takes).
        """
        freed = sum(weight.hold(units) for weight in self._parts.held)
        self.show(units)
        return freed

    def show(self, units: int) -> None:
        """Compute with the first `units` units; memory stays as it is."""
        for weight in self._parts.held:
            weight.show(units)
        self.units = units

    def __call__(self, states: Tensor, step: Attending) -> Tensor:
        """Return the hidden states after the sub-block, `[tokens, hidden_size]`, for those before it."""
        before, *after = self._parts.norms
        found = self._found(before(states), step)
        for norm in after:
            found = norm(found)
        return states + found

    @abstractmethod
    def _found(self, x: Tensor, step: Attending) -> Tensor:
        """Return what the sub-block adds to the hidden states."""


class Attention(SubBlock):
    """The attention of block `index`; head_norms: of queries and of keys, where the family has them."""

    def __init__(self, parts: Parts, index: int, sight: Sight, head_norms: Sequence[Norm] = ()) -> None:
        super().__init__(parts)
        self._index = index
        self._sight = sight
        self._head_norms = tuple(head_norms)

    def _found(self, x: Tensor, step: Attending) -> Tensor:
        queries, keys, values = (rows(x).view(len(x), -1, self._sight.head_dim) for rows in self._parts.rows)
        if self._head_norms:
            queries = self._head_norms[0](queries)
            keys = self._head_norms[1](keys)
        if self._sight.rotary is not None:
            table = step.table(self._sight.rotary)
            queries = rotated(queries, *table)
            keys = rotated(keys, *table)
        seen = step.attend(self._index, queries, keys, values, self._sight)
        found = self._parts.columns(seen.flatten(1))
        # A request without this attention gets nothing from it, not the bias of its output either.
        absent = step.absent(self._index) if self._parts.columns.bias is not None else None
        return found if absent is None else found.masked_fill(absent, 0)


class FeedForward(SubBlock):
    """A gated FFN; act: activation of the gate."""

    def __init__(self, parts: Parts, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__(parts)
        self._act = act

    def _found(self, x: Tensor, step: Attending) -> Tensor:
        gate, up = self._parts.rows
        return self._parts.columns(self._act(gate(x)).mul_(up(x)))
