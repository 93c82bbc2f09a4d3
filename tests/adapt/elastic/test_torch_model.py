"""Opening an elastic model in torch: the whole model, and what cannot be opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.ladders import ladder_for
from tests.runtime.elastic.steps import transformers

from secateur.adapt.elastic.torch_model import open_elastic
from secateur.model.handle import open_model
from secateur_runtime.errors import LadderError

Maker = Callable[..., Path]
TOKENS = [5, 100, 33, 200, 77]


@pytest.mark.parametrize("family", ["llama", "gemma2", "phi3"])
def test_level_0_predicts_what_the_model_predicts(family: str, tiny: Maker, tmp_path: Path) -> None:
    model = open_model(str(tiny(family)))
    ladder = ladder_for(model.graph, model.digest, ("1.ffn:64", "1.attn"))
    elastic = open_elastic(model, ladder, tmp_path / "weights.safetensors", dtype=torch.float32)
    with torch.no_grad():
        wanted = transformers(model.source.ref)(torch.tensor([TOKENS]), use_cache=False).logits[0, -1]
    with elastic.open(len(TOKENS)) as cache:
        found = elastic.prefill(TOKENS, cache)
    torch.testing.assert_close(found, wanted, atol=5e-5, rtol=0)


def test_a_ladder_of_another_model_or_without_the_level_writes_nothing(tiny: Maker, tmp_path: Path) -> None:
    model = open_model(str(tiny("llama")))
    ladder = ladder_for(model.graph, model.digest, ("1.attn",))
    with pytest.raises(LadderError, match="no level 2"):
        open_elastic(model, ladder, tmp_path / "weights.safetensors", level=2)
    with pytest.raises(LadderError, match="was made for"):
        open_elastic(open_model(str(tiny("qwen2"))), ladder, tmp_path / "weights.safetensors")
    assert list(tmp_path.iterdir()) == []
