"""Losses of windows against transformers, whole and with narrower sub-blocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.ladders import ladder_for
from tests.runtime.elastic.steps import transformers
from torch.nn.functional import cross_entropy

from secateur.adapt.ranking.pricing import open_passing
from secateur.model.handle import open_model

Maker = Callable[..., Path]
TOKENS = torch.randint(200, (2, 24), generator=torch.Generator().manual_seed(0))
SCORED = 18


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_the_loss_is_that_of_transformers(family: str, tiny: Maker, tmp_path: Path) -> None:
    model = open_model(str(tiny(family)))
    ladder = ladder_for(model.graph, model.digest, ())
    passing = open_passing(model, ladder, tmp_path / "weights", TOKENS, SCORED, torch.float32)
    assert passing.halves[:2] == ["0.kv", "0.ffn"]
    whole = transformers(model.source.ref)
    with torch.no_grad():
        logits = whole(TOKENS, use_cache=False).logits[:, -SCORED - 1 : -1]
    wanted = float(cross_entropy(logits.flatten(0, 1), TOKENS[:, -SCORED:].flatten()))
    for removed in ("", "1.kv", "1.ffn"):
        states = passing.embedded()
        for name in passing.halves:
            states = passing.through(name, 0 if name == removed else len(ladder.order[name]), states)
        assert (abs(passing.loss(states) - wanted) < 2e-5) == (not removed)
