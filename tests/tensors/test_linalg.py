from __future__ import annotations

import pytest
import torch

from secateur.tensors.linalg import damped_cholesky, with_damping
from secateur_runtime.errors import SecateurError


def test_adds_a_share_of_each_diagonal_entry_and_factorises_that() -> None:
    inputs = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    gram = inputs.T @ inputs
    before = gram.clone()
    factor, damping = damped_cholesky(gram, 0.25)
    expected = before.double() + torch.diag(0.25 * before.double().diagonal())
    torch.testing.assert_close(with_damping(gram, damping), expected, rtol=1e-15, atol=0)
    torch.testing.assert_close(factor @ factor.T, expected)
    assert torch.equal(gram, before)
    assert torch.equal(factor, factor.tril())


def test_a_float64_matrix_is_left_as_it_was() -> None:
    gram = torch.eye(3, dtype=torch.float64)
    damped_cholesky(gram, 0.5)
    assert torch.equal(gram, torch.eye(3, dtype=torch.float64))


def test_grows_tenfold_until_it_factorises() -> None:
    gram = torch.tensor([[1.0, 1.5], [1.5, 1.0]])
    factor, damping = damped_cholesky(gram, 0.01)
    assert damping == pytest.approx(1.0)
    torch.testing.assert_close(factor @ factor.T, with_damping(gram, damping))


@pytest.mark.parametrize("power", [0.0, 4.0])
def test_an_input_that_is_always_zero_gets_a_share_of_the_others_power(power: float) -> None:
    damped = with_damping(torch.diag(torch.tensor([power, 0.0])), 0.01)
    assert float(damped[1, 1]) == pytest.approx(0.01 * (power / 2 * 1e-6 if power else 1.0))


def test_a_matrix_that_is_far_from_positive_is_refused() -> None:
    with pytest.raises(SecateurError, match="not positive semi-definite"):
        damped_cholesky(torch.tensor([[1.0, 1e9], [1e9, 1.0]]), 0.01)
