"""The regression of SlimLLM against least squares on raw outputs in float64."""

from __future__ import annotations

import pytest
import torch
from tests.problems import make_stats
from tests.transform.unit_repair.problems import KEPT, case

from secateur.tensors.stats import LinearStats
from secateur.transform.unit_repair import CutLinear
from secateur.transform.unit_repair.affine import affine
from secateur.transform.unit_repair.bias import bias
from secateur_runtime.errors import SecateurError


@pytest.mark.parametrize("biased", [True, False])
def test_it_is_the_least_squares_of_every_output(biased: bool) -> None:
    inputs, cut = case(biased=biased)
    done = affine(cut)
    whole = inputs.double() @ cut.weight.double().T
    left = inputs[:, KEPT].double() @ cut.weight[:, KEPT].double().T
    for row in range(6):
        columns = torch.stack([left[:, row], torch.ones(400, dtype=torch.float64)][: 1 + biased], 1)
        solution = torch.linalg.lstsq(columns, whole[:, row, None]).solution[:, 0]
        torch.testing.assert_close(
            done.weight[row, KEPT].double(),
            solution[0] * cut.weight[row, KEPT].double(),
            rtol=1e-4,
            atol=1e-5,
        )
        if biased:
            assert done.shift is not None
            torch.testing.assert_close(done.shift[row].double(), solution[1], rtol=1e-4, atol=1e-4)
    assert biased is (done.shift is not None)


def test_what_does_not_vary_is_only_shifted() -> None:
    """Constant inputs are removed, zero ones are retained, and a row has weights of removed inputs only."""
    inputs, cut = case()
    inputs[:, KEPT] = torch.tensor([1000.0, 3.0, 0.0, 0.1, -5.0])
    weight = cut.weight.clone()
    weight[2, KEPT] = 0
    still = CutLinear(weight, make_stats(inputs), KEPT, True)
    done, expected = affine(still), bias(still)
    assert expected.shift is not None
    torch.testing.assert_close(done, expected, rtol=1e-4, atol=1e-3)
    assert torch.equal(affine(CutLinear(weight, make_stats(inputs), KEPT, False)).weight[2], torch.zeros(10))


def test_a_missing_gram_matrix_is_refused() -> None:
    _, cut = case()
    bare = LinearStats(cut.stats.tokens, cut.stats.input_sq, cut.stats.input_mean)
    with pytest.raises(SecateurError, match="needs the Gram matrix"):
        affine(CutLinear(cut.weight, bare, KEPT, True))
