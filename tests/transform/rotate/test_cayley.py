"""Descent over orthogonal matrices."""

from __future__ import annotations

import torch

from secateur.transform.rotate.cayley import Cayley


def test_it_stays_orthogonal_and_reaches_a_rotation_that_is_known() -> None:
    """The nearest orthogonal matrix to a target is the target, where that is one."""
    generator = torch.Generator().manual_seed(0)
    skew = torch.randn(2, 6, 6, dtype=torch.float64, generator=generator) * 0.3
    target = torch.linalg.matrix_exp(skew - skew.mT)
    place = Cayley(torch.eye(6).expand(2, -1, -1))
    for step in range(400):
        place.step(2 * (place.value - target), 0.05 * (1 - step / 400))
    torch.testing.assert_close(
        place.value.mT @ place.value, torch.eye(6, dtype=torch.float64).expand(2, -1, -1), rtol=0, atol=1e-12
    )
    torch.testing.assert_close(place.value, target, rtol=0, atol=1e-3)
