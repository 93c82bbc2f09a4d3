"""The native backend: one step at a time, several sequences together, and the same as all at once."""

from __future__ import annotations

import numpy as np
import pytest
from tests.conftest import Maker

from secateur.model.full_model import load_whole
from secateur.model.handle import open_model
from secateur.pipeline.evaluate.native_model import NativeOptions, run_natively
from secateur.runtime.native import Native
from secateur.runtime.torch import TorchBackend
from secateur_runtime.kernels.library import kernels

PROMPT = [5, 100, 33, 200, 77]


@pytest.fixture
def native(tiny: Maker) -> Native:
    if kernels() is None:
        pytest.skip("no C compiler, so no kernels")
    found = run_natively(open_model(str(tiny("llama"))), NativeOptions(kind="f32", exact=True))
    assert isinstance(found, Native)
    return found


def test_it_answers_as_transformers_does(native: Native, tiny: Maker) -> None:
    torch = TorchBackend(load_whole(open_model(str(tiny("llama")))))
    np.testing.assert_allclose(native.logprobs(PROMPT), torch.logprobs(PROMPT), atol=1e-4)
    assert np.exp(native.logprobs(PROMPT).astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)
    answer = native.generate(PROMPT, 6)
    assert answer.tokens == torch.generate(PROMPT, 6).tokens
    assert min(answer.first, answer.rest) > 0


def test_sequences_step_together(native: Native) -> None:
    """Two caches in one step give what each gives alone."""
    long, short = native.open(), native.open()
    last = native.prefill(PROMPT, long)
    native.prefill(PROMPT[:2], short)
    together = native.decode([9, 33], [long, short])
    np.testing.assert_allclose(together[0], native.prefill([*PROMPT, 9], native.open()), atol=1e-4)
    np.testing.assert_allclose(together[1], native.prefill(PROMPT[:3], native.open()), atol=1e-4)
    every = np.concatenate(list(native.logits(PROMPT)))
    assert every.shape == (5, 384)
    np.testing.assert_allclose(every[-1], last, atol=1e-4)


def test_logits_come_in_parts(native: Native, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(native.logits(PROMPT))
    monkeypatch.setattr("secateur.runtime.native._AT_ONCE", 2)
    parts = list(native.logits(PROMPT))
    assert [len(part) for part in parts] == [2, 2, 1]
    np.testing.assert_allclose(np.concatenate(parts), whole[0], atol=1e-4)


def test_bytes_are_those_of_the_matrices(native: Native, tiny: Maker) -> None:
    """Untied embeddings are held, and not read for a token."""
    graph = open_model(str(tiny("llama"))).graph
    about = native.about()
    matrices = sum(4 * info.numel for info in graph.tensors.values() if len(info.shape) == 2)
    embeddings = 4 * graph.vocab_size * graph.hidden_size
    assert about.weights == pytest.approx(matrices, rel=0.02)
    assert about.weights - about.read == pytest.approx(embeddings, rel=0.02)
    assert sum(count for *_, count in about.kinds) == 7 * len(graph.blocks) + 1
    assert native.memory().resident > 1 << 20
