"""How far the importance of weights is spread, and rotations that concentrate it.

The importance of a weight is its square times the mean square of its input. Within a linear, shares of the
sum are a distribution; the lower its entropy, the less importance a mask of a given size removes. This is
what DenoiseRotator (arXiv:2505.23049) minimises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.transform.rotate.cayley import Cayley

_TINY = 1e-30


@dataclass(frozen=True, slots=True)
class Readings:
    """What a block's linears look like to a rotation of the states that pass through it, float32.

    reads: weights `[out_features, n]` of the linears that read the states, norm folded in, with the second
    moments `[n, n]` of the normed states.
    writes: weights `[n, in_features]` of those that add to them, with the mean squares `[in_features]` of
    their inputs.
    """

    reads: tuple[tuple[Tensor, Tensor], ...]
    writes: tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True, slots=True)
class Heads:
    """Values and outputs of the key-value heads of one block, float32.

    values: `[heads, head_dim, n]`, value_sq: mean squares `[n]` of their inputs. outputs: `[heads, queries,
    n, head_dim]`, those of the query heads of each; moments: second moments `[heads, queries, head_dim,
    head_dim]` of what they read.
    """

    values: Tensor
    value_sq: Tensor
    outputs: Tensor
    moments: Tensor


def entropy(scores: Tensor) -> Tensor:
    """Return the entropy of scores `[..., a, b]` as shares of their sum, nats."""
    shares = scores / scores.sum((-2, -1), keepdim=True).clamp_min(_TINY)
    return -(shares * shares.clamp_min(_TINY).log()).sum((-2, -1))


def spread(turn: Tensor, block: Readings) -> Tensor:
    """Return the mean entropy of a block's linears once its states are rotated by `turn` `[n, n]`."""
    found = [
        entropy((weight @ turn).square() * ((moments @ turn) * turn).sum(0).clamp_min(0))
        for weight, moments in block.reads
    ]
    found += [entropy((turn.T @ weight).square() * square) for weight, square in block.writes]
    return torch.stack(found).mean()


def head_spread(turns: Tensor, heads: Heads) -> Tensor:
    """Return the mean entropy of values and outputs once each head's values are rotated.

    turns: one rotation per head, `[heads, head_dim, head_dim]`.
    """
    values = (turns.mT @ heads.values).square() * heads.value_sq
    each = turns[:, None]
    outputs = (heads.outputs @ each).square() * ((heads.moments @ each) * each).sum(
        -2, keepdim=True
    ).clamp_min(0)
    return torch.cat([entropy(values), entropy(outputs).flatten()]).mean()


def gathered(start: Tensor, losses: Iterable[Callable[[Tensor], Tensor]], rates: Iterable[float]) -> Tensor:
    """Return orthogonal matrices, float64, after one step of descent from `start` for each of `losses`.

    losses: take matrices of the shape of `start`, float32. rates: radians, one for each loss.
    """
    place = Cayley(start)
    for loss, rate in zip(losses, rates, strict=True):
        with torch.enable_grad():
            turn = place.value.float().requires_grad_()
            (gradient,) = torch.autograd.grad(loss(turn), turn)
        place.step(gradient, rate)
    return place.value
