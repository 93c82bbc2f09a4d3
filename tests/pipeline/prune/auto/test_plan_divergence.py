"""The divergence measured before anything is written is that of the written model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.conftest import Maker
from torch.nn.functional import kl_div, log_softmax

import secateur
from secateur.calibrate.calibration import Calibration, calibration_tokens, text_of
from secateur.core.context import Settings
from secateur.core.execution import Execution
from secateur.core.plan import Plan
from secateur.model.handle import open_model
from secateur.pipeline.evaluate.verify import verify
from secateur.pipeline.prune.auto.plan_divergence import PlanDivergence

MUCH = Calibration(samples=32, window=64)


DEEP = {"num_hidden_layers": 5}


def test_a_rehearsal_is_what_the_run_makes(tiny: Maker, tmp_path: Path) -> None:
    # Enough text for a refit behind the gap that holds on other text.
    source = tiny("llama", **DEEP)
    model = open_model(str(source))
    tokens = calibration_tokens(model, MUCH, 0)
    keep = {"1.ffn": tuple(range(40)), "3.kv": (1,), "4.ffn": tuple(range(0, 96, 2))}
    text = text_of(MUCH, tokens)
    plans = [
        Plan(
            model=model.digest,
            keep=keep,
            drop=("2",),
            execution=Execution(unit_repair=repair, gap_repair=gap, calibration=text),
        )
        for repair, gap in (("none", "none"), ("lsq", "none"), ("lsq", "seam"))
    ]
    rehearse = PlanDivergence(model, tokens, tokens, 0)
    found = [rehearse(plan) for plan in plans]
    for plan, rehearsed in zip(plans, found, strict=True):
        out = tmp_path / f"{plan.execution.unit_repair}-{plan.execution.gap_repair}"
        secateur.apply(plan, str(source), out, settings=Settings(dtype="float32", arithmetic="float32"))
        assert verify(str(out)) is not None
        stream, whole = open_model(str(out)).stream(), model.stream()
        finals = []
        for one in (whole, stream):
            (states,) = one.embed([tokens])
            for index in range(len(one)):
                with one.open(index) as live:
                    states = live(states)
            finals.append(log_softmax(torch.cat(list(one.logits(states.flatten(0, 1)))).double(), -1))
        assert rehearsed == pytest.approx(
            float(kl_div(finals[1], finals[0], reduction="none", log_target=True).sum(-1).mean()), rel=0.05
        )
    assert found[2] != found[1] != found[0]
