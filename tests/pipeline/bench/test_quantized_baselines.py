"""A model against the whole model in few bits: all are measured in turns, with bytes and quality."""

from __future__ import annotations

import pytest
from tests.conftest import Maker

from secateur.core.progress import Silent
from secateur.pipeline.bench.bench import BenchSettings
from secateur.pipeline.bench.quantized_baselines import WHOLE, EvaluationText, beside
from secateur.pipeline.evaluate.evaluate import evaluate
from secateur.pipeline.evaluate.native_model import NativeOptions
from secateur_runtime.kernels.library import kernels

SETTINGS = BenchSettings(backend="native", kind="bf16", prompt=8, tokens=4, repeat=1)
TEXT = EvaluationText(text="builtin", window=64, count=2)


def test_every_type_of_the_whole_model(tiny: Maker) -> None:
    pytest.importorskip("xllamacpp", reason="pip install 'secateur[llamacpp]'")
    if kernels() is None:
        pytest.skip("no C compiler, so no kernels")
    model = str(tiny("llama", intermediate_size=64))
    whole = str(tiny("llama"))
    found = beside(model, whole, SETTINGS, TEXT)
    assert [row.name.partition(", ")[2] for row in found] == [
        "native bf16",
        *(" ".join(kind) for kind in WHOLE),
    ]
    ours, *others = found
    assert (ours.ratio.low, ours.ratio.high) == (1.0, 1.0), "its own speed by itself"
    assert all(row.decode.median > 0 and row.ratio.median > 0 for row in others)
    assert ours.bytes < others[0].bytes, "fewer neurons in the same type"
    assert others[0].bytes > others[1].bytes > others[2].bytes
    assert {row.benched.digest for row in others[:3]} != {ours.benched.digest}
    records = {record.name: record for record in ours.records(SETTINGS, TEXT)}
    assert records["bytes"].value == ours.bytes
    assert records["perplexity"].value == ours.perplexity
    assert "builtin, 2 windows of 64 tokens" in records["perplexity"].protocol
    assert "perplexity" not in {record.name for record in ours.records(SETTINGS, None)}


def test_perplexity_is_of_what_runs(tiny: Maker) -> None:
    if kernels() is None:
        pytest.skip("no C compiler, so no kernels")
    model = str(tiny("llama"))
    native = TEXT.perplexity(model, BenchSettings(backend="native", kind="int4"), Silent())
    expected = evaluate(model, text="builtin", window=64, count=2, native=NativeOptions(kind="int4"))
    assert native == expected.perplexity
    plain = TEXT.perplexity(model, BenchSettings(backend="llamacpp"), Silent())
    assert plain == evaluate(model, text="builtin", window=64, count=2).perplexity != native
