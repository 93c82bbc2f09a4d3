"""Give a transformers model blocks of unequal width: some narrower, some without attention or FFN."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class Nothing(nn.Module):
    """Stands where a sub-block was removed: adds nothing to the residual stream."""

    def __init__(self, *, attention: bool) -> None:
        super().__init__()
        self._attention = attention

    def forward(self, *inputs: Tensor, **named: Any) -> Any:
        """Return zeros of the shape of the hidden states; for attention, a pair with None as its weights."""
        hidden = inputs[0] if inputs else named["hidden_states"]
        return (hidden.new_zeros(hidden.shape), None) if self._attention else hidden.new_zeros(hidden.shape)


class Same(nn.Module):
    """Stands where the norm of a removed sub-block was."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Return what came in."""
        return hidden


def plain_width(fields: Mapping[str, Any]) -> dict[str, int]:
    """Return the `hidden_size` that a config class may require: the width of all query heads together."""
    return {"hidden_size": fields["num_attention_heads"] * fields["head_dim"]} if "head_dim" in fields else {}


@contextmanager
def plain_widths(config: Any) -> Iterator[None]:
    """Give a config that `hidden_size` until exit."""
    real = config.hidden_size
    config.hidden_size = plain_width(vars(config))["hidden_size"]
    try:
        yield
    finally:
        config.hidden_size = real


def reshape_blocks(model: Any, rows: Sequence[Mapping[str, int]], norms: Mapping[str, Sequence[str]]) -> None:
    """Replace every decoder layer whose row differs from the model's config by one of its own widths.

    rows: `n_heads`, `n_kv_heads`, `head_dim`, `intermediate_size` of each block; zero heads or a zero width
    mean absent.
    norms: names of the norms that belong to each sub-block, under `attn` and `ffn`.
    """
    decoder = model.get_decoder()
    for index, row in enumerate(rows):
        layer = type(decoder.layers[index])(_config_of(model.config, row), index)
        if not row["n_heads"]:
            layer.self_attn = Nothing(attention=True)
            _drop(layer, norms["attn"])
        if not row["intermediate_size"]:
            layer.mlp = Nothing(attention=False)
            _drop(layer, norms["ffn"])
        decoder.layers[index] = layer


def _config_of(config: Any, row: Mapping[str, int]) -> Any:
    own = copy.copy(config)
    if row["n_heads"]:
        own.num_attention_heads = row["n_heads"]
        own.num_key_value_heads = row["n_kv_heads"]
        own.head_dim = row["head_dim"]
    if row["intermediate_size"]:
        own.intermediate_size = row["intermediate_size"]
    return own


def _drop(layer: nn.Module, names: Sequence[str]) -> None:
    for name in names:
        setattr(layer, name, Same())
