"""Output biases of sub-blocks: which can hold one, and a model seen with biases that it does not store."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from secateur.core.graph import TensorInfo
from secateur.model.families import Family
from secateur.model.graph_builder import tensor_shapes
from secateur.model.handle import ModelHandle
from secateur.tensors.source import Derived


def output_module(family: Family, part: str) -> str:
    """Return the last linear of a sub-block, `attn` or `ffn`."""
    return family.o if part == "attn" else family.down


def holds_output_bias(family: Family, part: str) -> bool:
    """Whether a stock config of the family can give the last linear of a sub-block a bias."""
    module = output_module(family, part)
    return module in family.biased or bool(family.bias_flag(module))


def with_output_biases(model: ModelHandle, parts: Collection[str]) -> ModelHandle:
    """Return the same model with a bias in the last linear of each of the sub-blocks `parts`.

    A new bias is zero. A sub-block that cannot hold a bias stays as it is. A config has one flag for several
    linears, so others get zeros too. The digest stays that of the model.
    """
    family = model.family
    flags = {flag for part in parts if (flag := family.bias_flag(output_module(family, part)))}
    if all(model.source.config.get(flag) for flag in flags):
        return model
    source = Biased(model, flags)
    return model.view(source)


class Biased(Derived):
    """A Source whose config sets `flags`, with zeros for the biases that these add."""

    def __init__(self, model: ModelHandle, flags: Collection[str]) -> None:
        source = model.source
        super().__init__(source)
        self.config = {**source.config, **dict.fromkeys(sorted(flags), True)}
        own = [
            tensor_shapes(model.family, self.config, block.index, block.shape, model.graph.hidden_size)
            for block in model.graph.blocks
        ]
        self._added = {
            name: shape for shapes in own for name, shape in shapes.items() if name not in source.tensors
        }
        infos = {
            name: TensorInfo(shape, source.tensors[name.removesuffix("bias") + "weight"].dtype)
            for name, shape in self._added.items()
        }
        self.tensors = {**source.tensors, **infos}

    def read(self, name: str) -> Tensor:
        """Return a tensor of the source, or the zeros of a bias that the source does not have."""
        return torch.zeros(self._added[name]) if name in self._added else self._source.read(name)

    def pieces(self, name: str) -> Iterator[Tensor]:
        """Yield the rows of such a tensor, a few at a time."""
        if name in self._added:
            yield self.read(name)
        else:
            yield from self._source.pieces(name)
