"""Perplexity and divergence against the formula in float64 on whole-model logits."""

from __future__ import annotations

import math

import pytest
import torch
from tests.conftest import Maker
from transformers import AutoModelForCausalLM

from secateur.core.progress import Silent
from secateur.measure.perplexity import measure
from secateur.model.handle import open_model


def _log_probabilities(folder: str, windows: torch.Tensor) -> torch.Tensor:
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logits: torch.Tensor = whole(windows).logits
    return logits[:, :-1].double().log_softmax(-1)


def test_figures_equal_the_float64_formula(tiny: Maker) -> None:
    folder, other = str(tiny("llama")), str(tiny("llama", rms_norm_eps=0.1))
    windows = torch.randint(200, (3, 300), generator=torch.Generator().manual_seed(5))
    mine, theirs = _log_probabilities(folder, windows), _log_probabilities(other, windows)
    nll = -mine.gather(-1, windows[:, 1:, None]).squeeze(-1)
    kl = (theirs.exp() * (theirs - mine)).sum(-1)
    found = measure(open_model(folder).stream(), windows, Silent(), open_model(other).stream())
    assert found.nll == pytest.approx(float(nll.mean()), rel=1e-6)
    assert found.nll_windows == pytest.approx(nll.mean(1).tolist(), rel=1e-6)
    assert found.perplexity == pytest.approx(math.exp(nll.mean()), rel=1e-6)
    assert found.kl == pytest.approx(float(kl.mean()), rel=1e-3)
    assert found.agreement == pytest.approx(float((mine.argmax(-1) == theirs.argmax(-1)).double().mean()))
    assert found.tokens == 3 * 299


def test_a_model_does_not_diverge_from_itself(tiny: Maker) -> None:
    stream = open_model(str(tiny("qwen2"))).stream()
    found = measure(stream, torch.arange(64).view(2, 32), Silent(), open_model(str(tiny("qwen2"))).stream())
    assert found.kl == pytest.approx(0.0, abs=1e-9)
    assert found.agreement == 1.0


def test_a_single_window_has_no_standard_error(tiny: Maker) -> None:
    assert (
        measure(open_model(str(tiny("llama"))).stream(), torch.arange(32)[None], Silent()).standard_error
        is None
    )
