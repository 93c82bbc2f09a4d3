"""One half of a block, as wide as the level says, or out of the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from secateur.runtime.elastic.attention import Seat
from secateur.runtime.elastic.weights import Prefix


class Half:
    """Attention or FFN of one transformers layer.

    units: how many it has now. With none, `stand_ins` (attribute of the layer -> module) take the places of its modules.
    heads: query heads of each key-value group; 0 for an FFN.
    """

    def __init__(self, layer: Any, weights: Sequence[Prefix], stand_ins: Mapping[str, nn.Module], heads: int) -> None:
        self.units = 0
        self._layer, self._weights, self._heads = layer, tuple(weights), heads
        self._absent = dict(stand_ins)
        self._present = {name: getattr(layer, name) for name in stand_ins}
        self._place(self._absent)

    def hold(self, units: int) -> int:
        """Have so many units in memory, and compute with them; return the bytes that this frees (negative: takes)."""
        freed = sum(weight.hold(units) for weight in self._weights)
        self.show(units)
        return freed

    def show(self, units: int) -> None:
        """Compute with so many of the units in memory."""
        for weight in self._weights:
            weight.show(units)
        if units and self._heads:
            self._tell(units)
        if bool(units) != bool(self.units):
            self._place(self._present if units else self._absent)
        self.units = units

    def _tell(self, groups: int) -> None:
        """Some families take the numbers of heads from the config or from the module, where all others read them off the states."""
        attention = self._present["self_attn"]
        attention.config.num_attention_heads, attention.config.num_key_value_heads = groups * self._heads, groups
        for name, count in (("num_heads", groups * self._heads), ("num_key_value_heads", groups)):
            if hasattr(attention, name):
                setattr(attention, name, count)

    def _place(self, modules: Mapping[str, nn.Module]) -> None:
        for name, module in modules.items():
            setattr(self._layer, name, module)


def silence_absent(attention: nn.Module, seat: Seat) -> None:
    """Let an attention whose output has a bias give nothing, not the bias, to requests that do not use it."""

    def silence(module: Any, _inputs: object, output: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
        absent = seat.step.absent(module.layer_idx)
        return output if absent is None else (output[0].masked_fill(absent, 0), output[1])

    attention.register_forward_hook(silence)
