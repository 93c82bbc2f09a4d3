"""Timing synthetic models: the files are what they say, and the rates are found again."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.core.progress import Silent
from secateur.device.decode_model import Clock, TokenWork
from secateur.device.profile import OUTPUT
from secateur.device.synthetic_gguf import Synthetic
from secateur.model.handle import open_model
from secateur.pipeline.advise.decode_timing import (
    KINDS,
    LONG,
    PROMPT,
    TOKENS,
    Clocking,
    TimedModel,
    rates,
    synthetics,
)
from secateur.runtime import Memory
from secateur.runtime.timed_turns import Spread, take_turns


@pytest.fixture(autouse=True)
def _installed() -> None:
    pytest.importorskip("xllamacpp", reason="pip install 'secateur[llamacpp]'")


@pytest.mark.parametrize("name", list(synthetics(1)))
def test_a_synthetic_model_takes_the_bytes_it_says(name: str, tmp_path: Path) -> None:
    model = synthetics(1)[name]
    model.write(tmp_path / "a.gguf")
    found = open_model(str(tmp_path / "a.gguf"))
    assert len(found.graph.blocks) == model.layers
    assert found.graph.vocab_size == model.vocabulary
    words = model.vocabulary * 24 + 2**16
    assert 0 < (tmp_path / "a.gguf").stat().st_size - sum(model.bytes.values()) < words


def _timed(clock: Clock, *, disturbed: float) -> dict[str, TimedModel]:
    found = {}
    for name, model in synthetics().items():
        context = (LONG if name == "cache" else PROMPT) + TOKENS
        cache = model.cache * context
        seconds = clock.seconds(TokenWork(model.read, model.layers, model.vocabulary, cache))
        copied = model.bytes[model.kind] if model.kind == "q4_0" else 0.0
        file = int(sum(model.bytes.values()))
        memory = Memory(0, int(60e6 + file + model.cache * context + copied), 0)
        found[name] = TimedModel(
            model, Spread(seconds, seconds / (1 + disturbed), 3 * seconds), cache, memory, file, context
        )
    return found


@settings(deadline=None)
@given(st.floats(1e-6, 1e-4), st.floats(1e9, 1e11), st.lists(st.floats(1e9, 1e11), min_size=5, max_size=5))
def test_rates_are_found_again(layer: float, cache: float, weights: list[float]) -> None:
    clock = Clock(dict(zip((*KINDS, OUTPUT), weights, strict=True)), 1.0, cache, layer, 0.0, 0.0, "")
    found = rates(_timed(clock, disturbed=0.25), 2)
    assert found.weights == pytest.approx(clock.weights, rel=1e-3)
    assert (found.layer, found.cache) == pytest.approx((layer, cache), rel=1e-2)
    assert found.copied == ["q4_0"]
    assert found.base == pytest.approx(60e6)
    assert found.threads == 2
    assert found.spread == pytest.approx(0.25)


def test_synthetic_models_run_in_llama_cpp() -> None:
    model = Synthetic(kind="q8_0", layers=2, hidden=64, inner=64, heads=1, kv_heads=1, vocabulary=512)
    with ExitStack() as stack:
        run = Clocking({"a": model}, 1, stack)
        timed = run.timed(take_turns(run.backends, run.prompts, TOKENS, 2, Silent()))["a"]
    assert 0 < timed.seconds.low <= timed.seconds.median < 1
    assert timed.memory.peak > timed.file
