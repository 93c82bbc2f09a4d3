"""The entropy of importance: its formula, its value after a rotation, and descent that lowers it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from secateur.transform.rotate.entropy import Heads, Readings, entropy, gathered, head_spread, spread

WIDTH = 16


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def orthogonal(*shape: int) -> Tensor:
    found: Tensor = torch.linalg.qr(draw(*shape, seed=9))[0]
    return found


@pytest.fixture
def block() -> Readings:
    """Linears whose inputs are strongly correlated, so that there is a better basis than the one given."""
    inputs = draw(200, WIDTH) @ (draw(WIDTH, WIDTH, seed=1) * torch.logspace(0, -2, WIDTH)[:, None])
    return Readings(
        ((draw(24, WIDTH, seed=2), inputs.T @ inputs / 200),),
        ((draw(WIDTH, 20, seed=3), draw(20, seed=4).square()),),
    )


def test_the_entropy_of_equal_and_of_single_scores() -> None:
    assert float(entropy(torch.ones(4, 8))) == pytest.approx(math.log(32))
    assert float(entropy(torch.tensor([[0.0, 3.0], [0.0, 0.0]]))) == 0


def test_spread_is_that_of_the_rotated_weights_and_inputs(block: Readings) -> None:
    turn = orthogonal(WIDTH, WIDTH)
    (read, moments), (write, square) = block.reads[0], block.writes[0]
    expected = [
        entropy((read @ turn).square() * (turn.T @ moments @ turn).diagonal()),
        entropy((turn.T @ write).square() * square),
    ]
    torch.testing.assert_close(spread(turn, block), torch.stack(expected).mean())


def test_descending_gathers(block: Readings) -> None:
    start = torch.eye(WIDTH)
    turn = gathered(start, [lambda turn: spread(turn, block)] * 200, [0.02] * 200)
    torch.testing.assert_close(turn.T @ turn, torch.eye(WIDTH, dtype=torch.float64), rtol=0, atol=1e-12)
    assert float(spread(turn.float(), block)) < float(spread(start, block)) - 0.5


def test_heads_gather_each_for_itself() -> None:
    inputs = draw(2, 3, 100, 8, seed=5) * torch.logspace(0, -1, 8)
    mixed = inputs @ orthogonal(8, 8)
    moments = mixed.mT @ mixed / 100
    heads = Heads(
        draw(2, 8, WIDTH, seed=6), draw(WIDTH, seed=7).square(), draw(2, 3, WIDTH, 8, seed=8), moments
    )
    start = torch.eye(8).expand(2, -1, -1)
    turns = gathered(start, [lambda turns: head_spread(turns, heads)] * 100, [0.03] * 100)
    assert float(head_spread(turns.float(), heads)) < float(head_spread(start, heads)) - 0.1
    one = turns[1].float()
    expected = (heads.outputs[1] @ one).square() * (one.T @ moments[1] @ one).diagonal(dim1=-2, dim2=-1)[
        :, None
    ]
    values = (turns.float().mT @ heads.values).square() * heads.value_sq
    other = (heads.outputs[0] @ turns[0].float()).square() * (
        turns[0].float().T @ moments[0] @ turns[0].float()
    ).diagonal(dim1=-2, dim2=-1)[:, None]
    whole = torch.cat([entropy(values), entropy(other), entropy(expected)]).mean()
    torch.testing.assert_close(head_spread(turns.float(), heads), whole)
