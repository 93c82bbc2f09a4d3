from __future__ import annotations

import torch

from secateur.criteria.random import random
from secateur.tensors.stats import LinearStats

STATS = LinearStats(0, torch.zeros(200), torch.zeros(200))


def test_is_uniform() -> None:
    scores = random(torch.randn(300, 200, generator=torch.Generator().manual_seed(0)), STATS)
    assert float(scores.min()) >= 0
    assert float(scores.max()) < 1
    counts = torch.histc(scores, bins=20, min=0, max=1)
    # six standard deviations of a binomial count
    assert float((counts - 3000).abs().max()) < 6 * 3000**0.5


def test_neighbours_are_unrelated() -> None:
    scores = random(torch.ones(300, 200), STATS) - 0.5
    for shifted in (scores.roll(1, 0), scores.roll(1, 1)):
        assert abs(float((scores * shifted).mean()) * 12) < 0.03


def test_tensors_of_one_shape_differ() -> None:
    first, second = random(torch.ones(4, 200), STATS), random(torch.zeros(4, 200), STATS)
    assert float((first == second).float().mean()) < 0.01
