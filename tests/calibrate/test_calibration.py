"""Calibration text: the tokens a plan names are the tokens that replaying it reads."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from tests.conftest import Maker

from secateur.calibrate.calibration import (
    Calibration,
    calibration_tokens,
    held_out,
    replay_calibration,
    text_of,
)
from secateur.core.execution import CalibrationText
from secateur.model.handle import ModelHandle, open_model
from secateur_runtime.errors import PlanError, TextError


@pytest.fixture
def model(tiny: Maker) -> ModelHandle:
    return open_model(str(tiny("llama")))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("Twelve branches were cut, and in spring every tree bore fruit again. " * 20)
    return path


def test_windows_are_consecutive_tokens_from_the_start_of_the_text(model: ModelHandle, text: Path) -> None:
    found = calibration_tokens(model, Calibration(text=str(text), samples=3, window=16), 0)
    ids = model.source.tokenizer()(text.read_text(), add_special_tokens=False)["input_ids"]
    assert found.tolist() == [ids[:16], ids[16:32], ids[32:48]]


def test_text_of_the_model_itself_depends_on_the_seed(model: ModelHandle) -> None:
    own = Calibration(text="self", samples=2, window=8)
    first = calibration_tokens(model, own, 3)
    assert first.shape == (2, 8)
    assert torch.equal(first, calibration_tokens(model, own, 3))
    assert not torch.equal(first, calibration_tokens(model, own, 4))


def test_a_plan_reads_its_text_again(model: ModelHandle, text: Path) -> None:
    calibration = Calibration(text=str(text), samples=3, window=16)
    tokens = calibration_tokens(model, calibration, 0)
    recorded = text_of(calibration, tokens)
    body = b"".join(int(token).to_bytes(8, "little") for token in tokens.flatten())
    digest = "sha256:" + hashlib.sha256(body).hexdigest()
    assert recorded == CalibrationText(text=str(text), samples=3, window=16, digest=digest)
    assert recorded.facts == {
        "calibration": str(text),
        "samples": "3",
        "window": "16",
        "calibration_digest": digest,
    }
    assert torch.equal(replay_calibration(model, recorded, 0), tokens)
    text.write_text(text.read_text().replace("spring", "autumn"))
    with pytest.raises(PlanError, match="is not what the plan was made with"):
        replay_calibration(model, recorded, 0)


def test_some_windows_are_held_out_and_some_are_left() -> None:
    assert [held_out(windows, 0.25) for windows in (2, 4, 8, 10)] == [1, 1, 2, 2]
    assert held_out(8, 0.5) == 4
    with pytest.raises(TextError, match="1 window of calibration text is too little"):
        held_out(1, 0.25)
    with pytest.raises(TextError, match="--samples"):
        held_out(4, 1.0)
