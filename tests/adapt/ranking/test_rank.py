"""The search against a naive one, and the ladder that comes out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from secateur.adapt.elastic.torch_model import open_elastic
from secateur.adapt.memory_model import MemoryModel
from secateur.adapt.ranking.rank import Rank, rank
from secateur.calibrate.calibration import Calibration, calibration_tokens
from secateur.core.ladder_plan import check_ladder, plan_of_level
from secateur.model.handle import open_model
from secateur.pipeline.prune.apply import apply
from secateur_runtime.errors import UsageError
from secateur_runtime.ladder_file import parse_ladder, read_ladder

Maker = Callable[..., Path]

CALIBRATION = Calibration(samples=3, window=32)

HOW = Rank(
    calibration=CALIBRATION, probe=2, widths=3, groups=True, floor=0.0, context=512, dtype=torch.float32
)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "phi3", "mistral"])
def test_every_loss_is_that_of_the_model_pruned_offline(family: str, tiny: Maker, tmp_path: Path) -> None:
    """The whole chain, from the order of the units to the states kept between removals."""
    model = open_model(str(tiny(family)))
    ladder, _ = rank(model, HOW, out=tmp_path / "ladder.json")
    assert [path.name for path in tmp_path.iterdir()] == ["ladder.json"]
    assert read_ladder(tmp_path / "ladder.json") == ladder
    assert parse_ladder(ladder.to_json()) == ladder
    check_ladder(ladder, model.graph, model.digest)
    tokens = calibration_tokens(model, CALIBRATION, 0)[:2]
    for level in (0, 3, len(ladder) - 1):
        apply(plan_of_level(ladder, level), model.source.ref, tmp_path / str(level))
        pruned = AutoModelForCausalLM.from_pretrained(tmp_path / str(level), dtype=torch.float32).eval()
        with torch.no_grad():
            logits = pruned(tokens, use_cache=False).logits
        assert ladder.at(level).loss == pytest.approx(
            float(cross_entropy(logits[:, 7:-1].flatten(0, 1), tokens[:, 8:].flatten())), abs=2e-5
        )
        sizes = open_model(str(tmp_path / str(level))).graph
        assert ladder.at(level).kv_values == MemoryModel(sizes).kv_values({})
        assert ladder.at(level).flops == MemoryModel(sizes).flops({})


def test_what_is_ranked_serves(tiny: Maker, tmp_path: Path) -> None:
    model = open_model(str(tiny("qwen2")))
    ladder, _ = rank(model, HOW)
    elastic = open_elastic(model, ladder, tmp_path / "weights.safetensors")
    assert elastic.set_level(len(ladder) - 1).freed > 0
    assert elastic.generate([1, 2, 3], 4).tokens


@pytest.mark.parametrize(
    "wrong",
    [
        {"floor": 1.0},
        {"floor": -0.1},
        {"widths": 0},
        {"probe": 0},
        {"criterion": "none such"},
        {"protect": ("nothing",)},
    ],
)
def test_what_cannot_work_is_one_line(wrong: dict[str, object], tiny: Maker) -> None:
    with pytest.raises(UsageError) as error:
        rank(open_model(str(tiny("llama"))), Rank(calibration=CALIBRATION, **wrong))  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
