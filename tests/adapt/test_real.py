"""An elastic SmolLM2: its levels, and its memory as the system counts it."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from tests.ladders import ladder_for
from transformers import AutoModelForCausalLM

from secateur.adapt.elastic.torch_model import open_elastic
from secateur.adapt.memory_model import MemoryModel
from secateur.core.context import Settings
from secateur.core.ladder_plan import plan_of_level
from secateur.model.handle import open_model
from secateur.pipeline.prune.apply import apply

UNITS = tuple(
    unit
    for block in range(3, 27, 2)
    for unit in (f"{block}.ffn:768", f"{block}.attn", f"{block}.ffn", f"{block + 1}.kv:2")
)
TOKENS = torch.randint(1000, 40_000, (200,), generator=torch.Generator().manual_seed(0)).tolist()


def _anonymous() -> int:
    rows = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return int(next(row.split()[1] for row in rows if row.startswith("Anonymous:"))) * 1024


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_smollm2_predicts_what_it_predicts_when_pruned_offline(smollm2: str, tmp_path: Path) -> None:
    model = open_model(smollm2)
    ladder = ladder_for(model.graph, model.digest, UNITS)
    elastic = open_elastic(model, ladder, tmp_path / "weights.safetensors", dtype=torch.float32)
    apply(plan_of_level(ladder, len(UNITS)), smollm2, tmp_path / "pruned", settings=Settings(dtype="float32"))
    pruned = AutoModelForCausalLM.from_pretrained(tmp_path / "pruned", dtype=torch.float32).eval()
    with torch.no_grad():
        meant = torch.log_softmax(
            pruned(torch.tensor([TOKENS]), use_cache=False).logits[0, -1].double(), -1
        ).float()
    elastic.set_level(len(UNITS))
    torch.testing.assert_close(torch.from_numpy(elastic.logprobs(TOKENS)), meant, atol=2e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_memory_of_smollm2_is_within_five_percent_of_the_model_and_comes_back(
    smollm2: str, tmp_path: Path
) -> None:
    model = open_model(smollm2)
    ladder, memory = ladder_for(model.graph, model.digest, UNITS), MemoryModel(model.graph)
    open_elastic(model, ladder, tmp_path / "weights.safetensors", level=len(UNITS)).generate(TOKENS[:4], 2)
    gc.collect()
    base = _anonymous()
    elastic = open_elastic(model, ladder, tmp_path / "weights.safetensors")
    caches = [elastic.open(300) for _ in range(4)]
    for cache in caches:
        elastic.prefill(TOKENS, cache)
    predicted = [
        memory.weights(ladder.kept(level)) + memory.cache(ladder.kept(level), 4, 200)
        for level in (0, len(UNITS))
    ]
    whole = _anonymous()
    assert whole - base == pytest.approx(predicted[0], rel=0.05)
    elastic.set_level(len(UNITS))
    assert whole - _anonymous() >= 0.95 * (predicted[0] - predicted[1])
    assert _anonymous() - base == pytest.approx(predicted[1], rel=0.05)
    for cache in caches:
        cache.close()
    assert _anonymous() - base == pytest.approx(memory.weights(ladder.kept(len(UNITS))), rel=0.05)
