"""The units of one group: their weights and statistics, and the values that each unit owns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from secateur.core.graph import Group, Slice
from secateur.tensors.stats import LinearStats


@dataclass(frozen=True, slots=True)
class UnitView:
    """One group of the dense model with everything that a unit criterion may read.

    weights: the whole float32 tensors that the group's slices name, biases and norms included.
    stats: by weight name, the moments of that linear's input; linears that share an input share one object.
    gradients: by tensor name, the gradient of the loss (mean over calibration tokens); empty by default.
    seed: what a random choice depends on.
    """

    group: Group
    weights: Mapping[str, Tensor]
    stats: Mapping[str, LinearStats] = field(default_factory=dict)
    gradients: Mapping[str, Tensor] = field(default_factory=dict)
    seed: int = 0

    @property
    def last(self) -> Slice:
        """The slice on the inputs of the sub-block's last linear; not defined for groups of kind `hidden`."""
        return self.group.slices[-1]

    def values(self, part: Slice) -> Tensor:
        """Return the values of a weight that each unit owns, as `unit_values` does."""
        return unit_values(self.weights[part.tensor], part, self.group.size)

    def inputs(self, part: Slice, vector: Tensor) -> Tensor:
        """Return the entries of `vector` that each unit owns, `[size, block]`.

        vector: one entry for each channel along the dimension of the slice.
        """
        return vector[part.offset : part.offset + self.group.size * part.block].view(
            self.group.size, part.block
        )


def unit_values(tensor: Tensor, part: Slice, size: int) -> Tensor:
    """Return the values that each of `size` units owns, `[size, block, rest]`.

    tensor: a weight `[out_features, in_features]` (its rows are the channels for `dim` 0, its columns for
    `dim` 1; `rest` is the other dimension) or a vector (`rest` is 1).
    """
    channels = tensor if part.dim == 0 else tensor.movedim(part.dim, 0)
    return channels[part.offset : part.offset + size * part.block].reshape(size, part.block, -1)
