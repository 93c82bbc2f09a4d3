"""What is measured without some units is what the cut model predicts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.conftest import Maker
from torch.nn.functional import cosine_similarity, kl_div, log_softmax
from transformers import AutoModelForCausalLM

import secateur
from secateur.calibrate.calibration import Calibration, calibration_tokens
from secateur.core.context import RunContext, Settings
from secateur.core.plan import Plan
from secateur.core.progress import Silent
from secateur.model.handle import open_model
from secateur.pipeline.prune.compared_positions import FEW_POSITIONS
from secateur.pipeline.prune.width.decide import Width, rank_units
from secateur.pipeline.prune.width.unit_ablation import UnitAblation

CALIBRATION = Calibration(samples=6, window=64)


EXACT = Settings(dtype="float32", arithmetic="float32")


def _seen(whole: torch.nn.Module, name: str, tokens: torch.Tensor) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    handle = whole.get_submodule(name).register_forward_pre_hook(
        lambda _module, inputs: seen.append(inputs[0].double())
    )
    with torch.no_grad():
        whole(tokens)
    handle.remove()
    return seen[0]


def test_the_probe_measures_what_the_cut_model_predicts(tiny: Maker, tmp_path: Path) -> None:
    source = tiny("qwen3")
    model = open_model(str(source))
    width = Width(units=("ffn", "kv"), ratio=0.4, repair="none", align=1)
    tokens = calibration_tokens(model, CALIBRATION, 0)
    groups = [group for block in model.graph.blocks for group in block.groups if group.kind in width.kinds]
    ranked = rank_units(model, groups, width, tokens, RunContext())
    cuts = {"0.ffn": 40, "1.kv": 1, "2.ffn": 60}
    probe = UnitAblation(model.stream(), ranked, tokens)
    assert probe({}).kl == pytest.approx(0, abs=1e-4)
    measured = probe(cuts)

    plan = Plan(model=model.digest, keep={name: ranked[name].keep(cut) for name, cut in cuts.items()})
    secateur.apply(plan, str(source), tmp_path / "out", settings=EXACT)
    dense = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    cut = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    with torch.no_grad():
        meant, found = (log_softmax(whole(tokens[:4]).logits.flatten(0, 1), -1) for whole in (dense, cut))
    assert len(meant) == FEW_POSITIONS
    assert measured.kl == pytest.approx(
        float(kl_div(found, meant, reduction="batchmean", log_target=True)), rel=0.03
    )

    before, after = (
        _seen(dense, "model.layers.1.input_layernorm", tokens[:4]),
        _seen(dense, "model.layers.1.post_attention_layernorm", tokens[:4]),
    )
    assert probe.influence["1.kv"] == pytest.approx(
        1 - float(cosine_similarity(before, after, dim=-1).mean()), rel=0.02
    )
    behind = _seen(dense, "model.layers.2.input_layernorm", tokens[:4])
    assert probe.influence["1.ffn"] == pytest.approx(
        1 - float(cosine_similarity(after, behind, dim=-1).mean()), rel=0.02
    )


def test_sensitivity_is_divergence_for_an_error_nothing_answers_for(tiny: Maker) -> None:
    model = open_model(str(tiny("llama")))
    width = Width(ratio=0.4, allocation="sensitivity", align=1)
    tokens = calibration_tokens(model, CALIBRATION, 0)
    groups = [group for block in model.graph.blocks[1:3] for group in block.groups if group.kind == "ffn"]
    ranked = rank_units(model, groups, width, tokens, RunContext())
    probe = UnitAblation(model.stream(), ranked, tokens)
    found = probe.sensitivity(Silent())
    for name, one in ranked.items():
        quarter = round(len(one.steps) / 4)
        assert found[name] == pytest.approx(
            probe({name: quarter}).kl / one.curve.unanswered[quarter], rel=1e-2
        )
        assert one.curve.unanswered[quarter] > one.curve.errors[quarter]
