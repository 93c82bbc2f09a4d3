"""transformers as a backend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.conftest import Maker
from tests.uneven import save_uneven, widths

from secateur.model.full_model import load_whole
from secateur.model.handle import open_registered
from secateur.runtime.torch import TorchBackend

PROMPT = [5, 100, 33, 200, 77, 150, 42]


def without_cache(backend: TorchBackend, count: int) -> tuple[int, ...]:
    """Return the likeliest tokens, each of a whole new pass."""
    tokens = list(PROMPT)
    for _ in range(count):
        tokens.append(int(np.argmax(backend.logprobs(tokens))))
    return tuple(tokens[len(PROMPT) :])


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_the_cache_changes_nothing(tiny: Maker, family: str) -> None:
    backend = TorchBackend(load_whole(open_registered(str(tiny(family)))))
    assert backend.generate(PROMPT, 12).tokens == without_cache(backend, 12)


def test_the_cache_of_a_model_without_attention_in_its_first_block(tiny: Maker, tmp_path: Path) -> None:
    folder = save_uneven(tiny("llama"), tmp_path / "model", widths([(0, 0, 96), (4, 2, 64), (2, 1, 0)]))
    backend = TorchBackend(load_whole(open_registered(str(folder))))
    assert backend.generate(PROMPT, 12).tokens == without_cache(backend, 12)


def test_logprobs_and_memory(tiny: Maker) -> None:
    backend = TorchBackend(load_whole(open_registered(str(tiny("llama")))))
    found = backend.logprobs(PROMPT)
    assert found.shape == (384,)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.exp(found).sum(), 1, rtol=1e-5)
    assert backend.memory().peak >= backend.memory().resident > 1 << 20
