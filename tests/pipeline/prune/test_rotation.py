"""Rotations: orthogonal matrices, unchanged predictions, byte-identical replay, cheaper cuts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.conftest import Maker

import secateur
from secateur.calibrate.calibration import Calibration, calibration_tokens
from secateur.core.context import RunContext
from secateur.core.plan import Plan
from secateur.core.progress import Silent
from secateur.model.handle import open_model
from secateur.model.views.rotated import Rotated
from secateur.model.written.reload_check import difference, last_states
from secateur.pipeline.evaluate.verify import verify
from secateur.pipeline.prune import rotation
from secateur.pipeline.prune.rotation import WAYS, rotated
from secateur.pipeline.prune.weights.decide import Sparsity
from secateur.pipeline.prune.width.decide import Width
from secateur_runtime.errors import PlanError, UsageError, VerificationError

SMALL = Calibration(samples=4, window=64)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "_STEPS", 8)
    monkeypatch.setattr(rotation, "_HEAD_STEPS", 3)


@pytest.mark.parametrize(
    ("family", "way"), [*(("qwen3", way) for way in WAYS), ("qwen2", "learned"), ("phi3", "learned")]
)
def test_predictions_stay_and_the_matrices_are_orthogonal(tiny: Maker, family: str, way: str) -> None:
    model = open_model(str(tiny(family)))
    tokens = calibration_tokens(model, SMALL, 0)
    turned = rotated(model, way, tokens, 0, RunContext())
    assert isinstance(turned.source, Rotated)
    found = turned.source.rotation
    assert (found.states is None, not found.heads) == (way == "heads", way == "pca")
    for matrix in (*([] if found.states is None else [found.states]), *found.heads.values()):
        one = torch.eye(matrix.shape[-1], dtype=torch.float64).expand_as(matrix)
        torch.testing.assert_close(matrix.mT @ matrix, one, rtol=0, atol=1e-10)
        assert float((matrix - one).abs().max()) > 1e-3
    logits = [
        torch.cat(list(one.stream().logits(last_states(one.stream(), tokens[:1])[0])))
        for one in (model, turned)
    ]
    assert difference(*logits) <= 1e-5


@pytest.mark.parametrize(
    "goal",
    [
        Sparsity(sparsity="2:4", method="wanda", rotate="learned"),
        Sparsity(sparsity=0.5, method="sparsegpt", rotate="heads"),
    ],
)
def test_a_plan_replays_byte_for_byte(tiny: Maker, tmp_path: Path, goal: Sparsity) -> None:
    src = str(tiny("qwen3"))
    secateur.prune(src, tmp_path / "once", goal, calibration=SMALL, seed=3)
    plan = Plan.from_json((tmp_path / "once" / "plan.json").read_text())
    assert plan.made_by["rotate"] == plan.execution.rotation == goal.rotate
    secateur.apply(plan, src, tmp_path / "again")
    assert {path.name: path.read_bytes() for path in (tmp_path / "once").iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()
    }
    assert verify(str(tmp_path / "again")).stock_difference <= 1e-5
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert config["tie_word_embeddings"] == (goal.rotate == "heads")


def test_hidden_channels_along_principal_axes(tiny: Maker, tmp_path: Path) -> None:
    """The folder is a stock one of fewer channels; states that lie in few axes survive losing the others."""
    src = tiny("llama")
    goal = Width(units=("hidden",), ratio=0.25, align=16, criterion="minitron", rotate="pca", repair="none")
    made = secateur.prune(str(src), tmp_path / "out", goal, calibration=SMALL)
    assert len(made.plan.keep["hidden"]) == 48
    assert made.plan.keep["hidden"] == tuple(range(48))
    assert verify(str(tmp_path / "out")).stock_difference <= 1e-5


def test_gemma_rotates_its_heads_alone(tiny: Maker, tmp_path: Path) -> None:
    src = str(tiny("gemma3_text"))
    for way in ("learned", "pca"):
        with pytest.raises(UsageError, match="scales what it adds to the states"):
            secateur.prune(
                src,
                tmp_path / "out",
                Sparsity(sparsity=0.5, method="magnitude", rotate=way),
                calibration=SMALL,
            )
    secateur.prune(
        src, tmp_path / "out", Sparsity(sparsity=0.5, method="magnitude", rotate="heads"), calibration=SMALL
    )
    assert verify(str(tmp_path / "out")).stock_difference <= 1e-5


def test_a_cut_after_learning_costs_less_entropy(tiny: Maker) -> None:
    notes: list[str] = []

    class Told(Silent):
        def note(self, line: str) -> None:
            notes.append(line)

    model = open_model(str(tiny("qwen3")))
    rotated(model, "learned", calibration_tokens(model, SMALL, 0), 0, RunContext(progress=Told()))
    assert f"{model.graph.vocab_size * model.graph.hidden_size:,} parameters more" in notes[0]
    as_it_is, axes, learned = (float(word) for word in notes[1].replace(",", "").split() if word[0].isdigit())
    assert learned < min(as_it_is, axes)


def test_what_cannot_work_is_one_line(tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    src = str(tiny("llama"))
    goal = Sparsity(sparsity=0.5, method="magnitude", rotate="learnt")
    with pytest.raises(UsageError, match=r"unknown --rotate 'learnt' \(did you mean learned\?\)"):
        secateur.prune(src, tmp_path / "out", goal, calibration=SMALL)
    plan = secateur.plan(src, replace(goal, rotate="heads"), calibration=SMALL)
    with pytest.raises(PlanError, match="merges blocks and rotates"):
        secateur.apply(replace(plan, drop=("1",), merge={"0": ("1",)}), src, tmp_path / "out")
    monkeypatch.setattr(Rotated, "_plain", lambda self, name: self._source.read(name))
    with pytest.raises(VerificationError, match="does not predict what the model does"):
        secateur.prune(src, tmp_path / "out", replace(goal, rotate="pca"), calibration=SMALL)
    assert not list(tmp_path.iterdir())
