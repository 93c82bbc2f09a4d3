"""Perplexity and divergence are those of transformers in float64 on the same windows."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tests.conftest import Maker
from tests.tiny_models import TEXT
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax
from transformers import AutoModelForCausalLM, AutoTokenizer

from secateur.pipeline.evaluate.evaluate import evaluate
from secateur_runtime.errors import TextError, UsageError

WINDOW = 40
COUNT = 5


def _logs(folder: Path, rows: Tensor) -> Tensor:
    """Log probabilities of each predicted token of each window, `[windows, window - 1, vocab_size]`."""
    whole = AutoModelForCausalLM.from_pretrained(folder).double().eval()
    with torch.no_grad():
        return log_softmax(whole(rows).logits[:, :-1], -1)


def test_figures_are_those_of_the_formulas(tiny: Maker, tmp_path: Path) -> None:
    model = tiny("llama", rms_norm_eps=0.1)
    parent = tiny("llama")
    (tmp_path / "text.txt").write_text(TEXT * 3)
    ids = AutoTokenizer.from_pretrained(model)(TEXT * 3, add_special_tokens=False)["input_ids"]
    rows = torch.tensor(ids[: WINDOW * COUNT]).view(COUNT, WINDOW)
    ours = _logs(model, rows)
    theirs = _logs(parent, rows)
    nll = -ours.gather(-1, rows[:, 1:, None]).squeeze(-1)
    found = evaluate(
        str(model), text=str(tmp_path / "text.txt"), window=WINDOW, count=COUNT, reference=str(parent)
    )
    assert found.tokens == COUNT * (WINDOW - 1)
    assert found.nll == pytest.approx(float(nll.mean()), rel=1e-5)
    assert found.nll_windows == pytest.approx(nll.mean(1).tolist(), rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(float(nll.mean())), rel=1e-5)
    kl = float(kl_div(ours, theirs, log_target=True, reduction="none").sum(-1).mean())
    assert found.kl == pytest.approx(kl, rel=1e-3)
    agreement = float((ours.argmax(-1) == theirs.argmax(-1)).double().mean())
    assert found.agreement == pytest.approx(agreement, abs=0.011)


def test_without_a_reference_nothing_is_compared(tiny: Maker) -> None:
    found = evaluate(str(tiny("llama")), window=WINDOW, count=2)
    assert (found.kl, found.agreement) == (None, None)
    assert len(found.nll_windows) == 2


def test_mistakes_are_one_line(tiny: Maker, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="a window of 1 tokens predicts nothing: --window must be at least 2"
    ):
        evaluate(str(tiny("llama")), window=1)
    (tmp_path / "text.txt").write_text("short")
    with pytest.raises(TextError):
        evaluate(str(tiny("llama")), text=str(tmp_path / "text.txt"), window=WINDOW, count=2)
