"""Cut units out of the tensors of a block, and put the retained ones back into their places."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from secateur.core.graph import Group

Shapes = Mapping[str, tuple[int, ...]]


def cut(
    tensors: Mapping[str, Tensor], groups: Iterable[Group], keep: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """Return the tensors with only the units that `keep` names of each group.

    Groups that it does not name stay whole. Every slice of a group is cut alike, so coupled rows and columns
    stay in step; what no slice owns is retained.
    """
    alive = survivors({name: tuple(tensor.shape) for name, tensor in tensors.items()}, groups, keep)
    result = dict(tensors)
    for name, indices in alive.items():
        for dim, index in enumerate(indices):
            result[name] = result[name].index_select(dim, index)
    return result


def uncut(
    tensors: Mapping[str, Tensor],
    shapes: Shapes,
    groups: Iterable[Group],
    keep: Mapping[str, tuple[int, ...]],
) -> dict[str, Tensor]:
    """Return the tensors at their whole `shapes`, zero where `cut` removed units."""
    alive = survivors(shapes, groups, keep)
    result = dict(tensors)
    for name, indices in alive.items():
        whole = torch.zeros(shapes[name], dtype=tensors[name].dtype)
        whole[torch.meshgrid(*indices, indexing="ij")] = tensors[name]
        result[name] = whole
    return result


def survivors(
    shapes: Shapes, groups: Iterable[Group], keep: Mapping[str, tuple[int, ...]]
) -> dict[str, list[Tensor]]:
    """Return the surviving indices along every dimension of each tensor of `shapes` that loses some.

    An index survives unless some group removes it.
    """
    masks: dict[str, list[Tensor]] = {}
    for group in groups:
        if group.name not in keep:
            continue
        units = torch.zeros(group.size, 1, dtype=torch.bool)
        units[list(keep[group.name])] = True
        for part in (part for part in group.slices if part.tensor in shapes):
            mask = masks.setdefault(
                part.tensor, [torch.ones(size, dtype=torch.bool) for size in shapes[part.tensor]]
            )[part.dim]
            mask[part.offset : part.offset + group.size * part.block] &= units.expand(
                -1, part.block
            ).flatten()
    return {name: [mask.nonzero().squeeze(1) for mask in dims] for name, dims in masks.items()}
