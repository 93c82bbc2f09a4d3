"""Principal axes: orthogonal, in order, and always the same."""

from __future__ import annotations

import torch

from secateur.transform.rotate.pca import principal


def test_axes_are_orthogonal_and_the_first_carry_most() -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(500, 12, dtype=torch.float64, generator=generator) @ torch.randn(
        12, 12, dtype=torch.float64, generator=generator
    )
    moments = states.T @ states
    axes = principal(moments)
    torch.testing.assert_close(axes.T @ axes, torch.eye(12, dtype=torch.float64))
    energy = (states @ axes).square().sum(0)
    assert bool((energy.diff() <= 0).all())
    # no channels as they are, however chosen, hold as much as the first axes do
    assert float(energy[:6].sum()) > float(states.square().sum(0).topk(6).values.sum())


def test_the_sign_of_an_axis_does_not_hang_on_the_library() -> None:
    moments = torch.diag(torch.tensor([3.0, 2.0, 1.0]))
    assert torch.equal(principal(moments), torch.eye(3, dtype=torch.float64))
