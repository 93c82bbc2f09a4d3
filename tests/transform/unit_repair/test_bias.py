"""The bias of FLAP against the mean of raw outputs in float64."""

from __future__ import annotations

import pytest
import torch
from tests.transform.unit_repair.problems import KEPT, REMOVED, case, outputs

from secateur.transform.unit_repair.bias import bias
from secateur_runtime.errors import UsageError


def test_it_is_the_mean_output_of_the_removed_inputs() -> None:
    inputs, cut = case()
    done = bias(cut)
    expected = (inputs[:, REMOVED].double() @ cut.weight[:, REMOVED].double().T).mean(0)
    assert done.shift is not None
    torch.testing.assert_close(done.shift.double(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(done.weight[:, KEPT], cut.weight[:, KEPT])
    whole = inputs.double() @ cut.weight.double().T
    torch.testing.assert_close(outputs(inputs, done).mean(0), whole.mean(0), rtol=1e-5, atol=1e-5)


def test_a_linear_without_a_bias_is_refused() -> None:
    _, cut = case(biased=False)
    with pytest.raises(UsageError, match="cannot hold the bias that --repair bias adds: use --repair lsq"):
        bias(cut)
