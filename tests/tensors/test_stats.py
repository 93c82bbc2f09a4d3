"""The moments of the inputs predict the output error of a pruned linear, as criteria and repairs assume."""

from __future__ import annotations

import torch
from tests.problems import make_stats

from secateur.tensors.stats import LinearStats


def test_the_gram_matrix_and_the_cross_moments_give_the_output_error() -> None:
    """The mean of |y - V x|² is that of |y|², less 2 <V, cross>, plus <V gram, V>; y is the dense output."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(40, 6, dtype=torch.float64, generator=generator)
    noisy = clean + 0.1 * torch.randn(40, 6, dtype=torch.float64, generator=generator)
    weight = torch.randn(3, 6, dtype=torch.float64, generator=generator)
    pruned = weight * (torch.rand(3, 6, generator=generator) > 0.5)
    outputs = clean @ weight.T
    stats = make_stats(noisy, outputs)
    assert stats.gram is not None
    assert stats.cross is not None
    found = (
        outputs.square().sum(1).mean()
        - 2 * (pruned * stats.cross).sum()
        + (pruned @ stats.gram * pruned).sum()
    )
    torch.testing.assert_close(found, (outputs - noisy @ pruned.T).square().sum(1).mean())
    torch.testing.assert_close(stats.gram.diagonal(), stats.input_sq)


def test_what_was_not_asked_for_is_none() -> None:
    stats = LinearStats(1, torch.ones(2), torch.zeros(2))
    assert (stats.gram, stats.cross, stats.input_abs, stats.seed) == (None, None, None, 0)
