"""The refit against ridge regression on raw inputs in float64."""

from __future__ import annotations

import pytest
import torch
from tests.transform.unit_repair.problems import KEPT, REMOVED, case

from secateur.tensors.stats import LinearStats
from secateur.transform.least_squares import DAMPING
from secateur.transform.unit_repair import CutLinear
from secateur.transform.unit_repair.lsq import lsq
from secateur_runtime.errors import SecateurError


def test_it_is_ridge_regression_on_the_retained_inputs() -> None:
    inputs, cut = case()
    done = lsq(cut)
    x = inputs.double()
    gram = x.T @ x / len(x)
    gram += DAMPING * torch.diag(gram.diagonal())
    # the damped Gram matrix is that of the inputs and of one more token for each of them
    rows = torch.linalg.cholesky(gram).T
    expected = torch.linalg.lstsq(rows[:, KEPT], rows @ cut.weight.double().T).solution.T
    torch.testing.assert_close(done.weight[:, KEPT].double(), expected, rtol=1e-4, atol=1e-4)
    assert not done.weight[:, REMOVED].any()
    assert done.shift is None


def test_a_missing_gram_matrix_is_refused() -> None:
    _, cut = case()
    bare = LinearStats(cut.stats.tokens, cut.stats.input_sq, cut.stats.input_mean)
    with pytest.raises(SecateurError, match="needs the Gram matrix"):
        lsq(CutLinear(cut.weight, bare, KEPT, True))
