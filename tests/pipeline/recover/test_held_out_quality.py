"""Quality on held-out windows: that of `measure`, with the teacher run once."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import Maker

from secateur.core.progress import Silent
from secateur.measure.perplexity import measure
from secateur.model.handle import open_model
from secateur.pipeline.recover.held_out_quality import HeldOutQuality

WINDOWS = torch.randint(200, (3, 40), generator=torch.Generator().manual_seed(2))


def test_several_models_against_one_teacher(tiny: Maker) -> None:
    teacher = open_model(str(tiny("llama"))).stream()
    quality = HeldOutQuality(teacher, WINDOWS, Silent())
    for eps in (0.01, 0.1):
        model = open_model(str(tiny("llama", rms_norm_eps=eps))).stream()
        found = quality(model)
        meant = measure(model, WINDOWS, Silent(), teacher)
        assert found.nll == pytest.approx(meant.nll, rel=1e-6)
        assert found.kl == pytest.approx(meant.kl, rel=1e-4)
        assert found.agreement == meant.agreement
        assert found.kl
    assert quality(open_model(str(tiny("llama"))).stream()).kl == pytest.approx(0, abs=1e-6)
