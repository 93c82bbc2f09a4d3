from __future__ import annotations

from dataclasses import replace

import torch
from tests.problems import make_view

from secateur.criteria.units.random import random


def test_depends_on_the_seed_and_the_group() -> None:
    view = make_view("ffn")
    scores = random(view)
    other = random(replace(view, group=replace(view.group, name="1.ffn")))
    assert torch.equal(scores, random(make_view("ffn")))
    assert not torch.equal(scores, random(replace(view, seed=1)))
    assert not torch.equal(scores, other)
    assert bool(((scores >= 0) & (scores < 1)).all())
