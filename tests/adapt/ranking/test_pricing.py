"""What steps cost on their own, against the model pruned offline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.ladders import EXAMPLE, ladder_for
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from secateur.adapt.ranking.pricing import price
from secateur.calibrate.calibration import Calibration, calibration_tokens
from secateur.core.ladder_plan import plan_of_units
from secateur.model.handle import open_model
from secateur.pipeline.prune.apply import apply
from secateur_runtime.errors import LadderError
from secateur_runtime.ladder import Ladder
from secateur_runtime.read_costs import choices_of

Maker = Callable[..., Path]
CALIBRATION = Calibration(samples=2, window=32)


def test_a_step_alone_loses_what_its_plan_loses(tiny: Maker, tmp_path: Path) -> None:
    model = open_model(str(tiny("llama", dtype="bfloat16")))
    ladder = ladder_for(model.graph, model.digest, ["1.ffn:64", "1.attn", "1.ffn"])
    priced = price(model, ladder, CALIBRATION, probe=2, scratch=tmp_path)
    assert list(tmp_path.iterdir()) == []
    tokens = calibration_tokens(model, CALIBRATION, 0)

    def loss(folder: Path | str) -> float:
        with torch.no_grad():
            logits = (
                AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
                .eval()(tokens, use_cache=False)
                .logits
            )
        return float(cross_entropy(logits[:, 7:-1].flatten(0, 1), tokens[:, 8:].flatten()))

    # 1.ffn on its own is the same as 1.ffn:64 and 1.ffn together: nothing of that half is left
    for unit, taken in (("1.attn", ["1.attn"]), ("1.ffn:64", ["1.ffn:64"]), ("1.ffn", ["1.ffn:64", "1.ffn"])):
        apply(plan_of_units(ladder, taken), model.source.ref, tmp_path / unit)
        assert priced.costs[0][unit] - ladder.loss == pytest.approx(
            loss(tmp_path / unit) - loss(model.source.ref), abs=2e-5
        )
    assert (priced.rungs, priced.order) == (ladder.rungs, ladder.order)
    with pytest.raises(LadderError, match="was made for"):
        price(model, replace(ladder, model="sha256:other"), CALIBRATION)


def test_prices_of_a_priced_ladder_are_differences_within_a_half() -> None:
    costs = {"1.ffn:2": 2.05, "1.ffn": 2.2, "1.attn": 1.9, "0.kv:1": 2.6}
    priced: Ladder = replace(EXAMPLE, costs=(costs, {"1.attn": 5.0}))
    assert choices_of(priced).prices == pytest.approx([0.05, 0.0, 0.15, 0.6])
