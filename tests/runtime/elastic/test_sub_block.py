"""Sub-blocks against their formulas, and widths that change."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from secateur.runtime.elastic.attention import Sight, Table
from secateur.runtime.elastic.sub_block import Attention, FeedForward, Norm, Parts


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class _Matrix:
    """A linear layer of as many units as are shown."""

    def __init__(self, weight: Tensor, *, columns: bool = False, bias: Tensor | None = None) -> None:
        self._whole = weight
        self._columns = columns
        self.bias = bias
        self.held = self.shown = len(weight.T if columns else weight)

    def hold(self, units: int) -> int:
        freed = (self.held - units) * 4
        self.held = self.shown = units
        return freed

    def show(self, units: int) -> None:
        self.shown = units

    def __call__(self, x: Tensor) -> Tensor:
        weight = self._whole[:, : self.shown] if self._columns else self._whole[: self.shown]
        found = x @ weight.T
        return found if self.bias is None else found + self.bias


class _FirstValue:
    """Attention that gives every query head its own group's values."""

    def __init__(self, absent: Tensor | None = None) -> None:
        self._absent = absent
        self.keys: Tensor | None = None

    def table(self, rotary: str) -> Table:
        return torch.zeros(2, 1, 2), torch.ones(2, 1, 2)

    def attend(self, block: int, queries: Tensor, keys: Tensor, values: Tensor, how: Sight) -> Tensor:
        self.keys = keys
        return values.repeat_interleave(queries.shape[1] // keys.shape[1], 1)

    def absent(self, block: int) -> Tensor | None:
        return self._absent


def _parts(rows: list[Any], columns: Any, norms: int = 1) -> Parts:
    weights = [1 + 0.1 * _random(6, seed=9 + place) for place in range(norms)]
    return Parts(held=[*rows, columns], norms=[Norm(w, 1e-5) for w in weights], rows=rows, columns=columns)


def _normed(x: Tensor, norm: Norm) -> Tensor:
    wide = x.double()
    return wide / (wide.pow(2).mean(-1, keepdim=True) + norm.epsilon).sqrt() * norm.weight.double()


def test_a_norm() -> None:
    x, norm = _random(3, 6), Norm(_random(6, seed=1), 1e-5)
    torch.testing.assert_close(norm(x).double(), _normed(x, norm), atol=1e-6, rtol=0)


def test_a_gated_ffn_of_a_few_neurons_and_both_norms() -> None:
    gate, up, down = _random(8, 6, seed=1), _random(8, 6, seed=2), _random(6, 8, seed=3)
    parts = _parts([_Matrix(gate), _Matrix(up)], _Matrix(down, columns=True), norms=2)
    ffn = FeedForward(parts, silu)
    assert ffn.hold(5) == 3 * 3 * 4
    assert ffn.units == 5
    x = _random(2, 6, seed=4)
    hidden = _normed(x, parts.norms[0])
    inner = silu(hidden @ gate[:5].double().T) * (hidden @ up[:5].double().T)
    expected = x.double() + _normed((inner @ down[:, :5].double().T).float(), parts.norms[1])
    found = ffn(x, _FirstValue())
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


def test_showing_keeps_memory_as_it_is() -> None:
    rows = [_Matrix(_random(8, 6)), _Matrix(_random(8, 6))]
    ffn = FeedForward(_parts(rows, _Matrix(_random(6, 8), columns=True)), silu)
    ffn.hold(8)
    ffn.show(3)
    assert ffn.units == 3
    assert [(matrix.held, matrix.shown) for matrix in rows] == [(8, 3), (8, 3)]


def _attention(bias: Tensor | None, sight: Sight, norms: tuple[Norm, ...] = ()) -> tuple[Attention, Parts]:
    rows = [_Matrix(_random(size, 6, seed=size)) for size in (8, 4, 5)]
    rows[2] = _Matrix(_random(4, 6, seed=7))
    parts = _parts(rows, _Matrix(_random(6, 8, seed=8), columns=True, bias=bias))
    return Attention(parts, 0, sight, norms), parts


def test_attention_projects_turns_and_joins_heads() -> None:
    """Sines of one and cosines of zero turn every pair by a right angle."""
    sight = Sight(head_dim=4, scale=1.0)
    head_norms = (Norm(torch.ones(4), 1e-5), Norm(torch.full((4,), 2.0), 1e-5))
    attention, parts = _attention(None, sight, head_norms)
    x, step = _random(2, 6, seed=4), _FirstValue()
    hidden = parts.norms[0](x)
    found = attention(x, step)
    keys = head_norms[1](parts.rows[1](hidden).view(2, 1, 4))
    turned = torch.cat([-keys[..., 2:], keys[..., :2]], -1)
    assert step.keys is not None
    torch.testing.assert_close(step.keys, turned)
    values = parts.rows[2](hidden)
    torch.testing.assert_close(found, x + parts.columns(torch.cat([values, values], -1)))


def test_a_request_without_attention_gets_no_bias_either() -> None:
    sight = Sight(head_dim=4, scale=1.0, rotary=None)
    attention, _ = _attention(torch.ones(6), sight)
    x = _random(2, 6, seed=4)
    found = attention(x, _FirstValue(torch.tensor([[False], [True]])))
    assert torch.equal(found[1], x[1])
    assert not torch.equal(found[0], x[0])
