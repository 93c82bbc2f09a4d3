"""Quality in the kernels is quality in torch."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conftest import Maker

from secateur.pipeline.evaluate.evaluate import evaluate
from secateur.pipeline.evaluate.native_model import NativeOptions


def test_quality_is_that_of_torch(tiny: Maker) -> None:
    model = str(tiny("smollm3"))
    text: dict[str, Any] = {"text": "builtin", "window": 100, "count": 6}
    ours = evaluate(model, reference=model, native=NativeOptions(kind="f32", exact=True), **text)
    theirs = evaluate(model, **text)
    assert ours.perplexity == pytest.approx(theirs.perplexity, rel=1e-4)
    assert ours.kl == pytest.approx(0, abs=1e-6)
    assert ours.agreement == pytest.approx(1, abs=0.01)
