"""What is known about the units of one group, and how the values a unit owns are gathered from its slices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from secateur.core.graph import Group, Slice
from secateur.tensors.stats import LinearStats


@dataclass(frozen=True, slots=True)
class UnitView:
    """One group of the dense model with all that a unit criterion may look at.

    weights: the whole float32 tensors that the group's slices name, biases and norms included.
    stats: by weight name, the moments of that linear's input; linears that share an input share one object.
    gradients: by tensor name, the gradient of the loss (mean over calibration tokens); empty unless asked
    for.
    seed: what a random choice depends on.
    """

    group: Group
    weights: Mapping[str, Tensor]
    stats: Mapping[str, LinearStats] = field(default_factory=dict)
    gradients: Mapping[str, Tensor] = field(default_factory=dict)
    seed: int = 0

    @property
    def last(self) -> Slice:
        """The slice of the inputs of the half's last linear; groups of kind `hidden` have no such slice."""
        return self.group.slices[-1]

    def values(self, part: Slice) -> Tensor:
        """Return what each unit owns of a weight, as `unit_values` does."""
        return unit_values(self.weights[part.tensor], part, self.group.size)

    def inputs(self, part: Slice, vector: Tensor) -> Tensor:
        """Return `[size, block]`: the entries of `vector`, one per channel of the slice's dimension, that each unit owns."""
        return vector[part.offset : part.offset + self.group.size * part.block].view(
            self.group.size, part.block
        )


def unit_values(tensor: Tensor, part: Slice, size: int) -> Tensor:
    """Return `[size, block, rest]`.

    For each of `size` units its channels, and all that lies along the other dimension.

    tensor: a weight `[out_features, in_features]` (rows are channels for `dim` 0, columns for `dim` 1) or a
    vector, whose `rest` is 1.
    """
    channels = tensor if part.dim == 0 else tensor.movedim(part.dim, 0)
    return channels[part.offset : part.offset + size * part.block].reshape(size, part.block, -1)
