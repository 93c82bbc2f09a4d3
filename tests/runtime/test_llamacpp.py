"""llama.cpp as a backend, and the process it runs in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import Maker

from secateur.model.full_model import load_whole
from secateur.model.handle import open_model
from secateur.runtime.isolated import Isolated
from secateur.runtime.llamacpp import require_llamacpp
from secateur.runtime.torch import TorchBackend
from secateur_runtime.errors import MissingExtraError, SourceError

LLAMACPP = "secateur.runtime.llamacpp:LlamaCpp"
HERE = "tests.runtime.test_llamacpp"
PROMPT = [5, 100, 33, 200, 77, 150, 42]
ENDS = [0, 2]


@pytest.fixture
def llama_cpp(tiny_gguf: Maker) -> Any:
    """llama.cpp with a tiny model, exact."""
    pytest.importorskip("xllamacpp", reason="pip install 'secateur[llamacpp]'")
    with Isolated(
        "llama.cpp", LLAMACPP, {"path": str(tiny_gguf("qwen2")), "context": 64, "exact": True}
    ) as backend:
        yield backend


def test_it_answers_as_transformers_does(llama_cpp: Isolated, tiny: Maker) -> None:
    torch = TorchBackend(load_whole(open_model(str(tiny("qwen2")))))
    ours, theirs = torch.logprobs(PROMPT), llama_cpp.logprobs(PROMPT)
    assert ours.shape == theirs.shape == (384,)
    np.testing.assert_allclose(theirs, ours, atol=2e-3)
    np.testing.assert_allclose(np.exp(theirs.astype(np.float64)).sum(), 1, rtol=1e-6)
    answer = llama_cpp.generate(PROMPT, 12)
    assert answer.first > 0
    assert answer.rest > 0
    for index, token in enumerate(answer.tokens):
        likely = torch.logprobs([*PROMPT, *answer.tokens[:index]])
        likely[ENDS] = -np.inf
        assert token == likely.argmax()


def test_half_a_character_is_no_obstacle(llama_cpp: Isolated) -> None:
    """llama.cpp's server says nothing of a token that starts a character and does not end it."""
    for token in range(120, 140):
        assert llama_cpp.logprobs([token, token]).shape == (384,)


def test_memory(llama_cpp: Isolated) -> None:
    memory = llama_cpp.memory()
    assert memory.peak >= memory.resident > memory.files >= 0
    assert memory.resident > 1 << 20


def test_a_prompt_that_does_not_fit(llama_cpp: Isolated) -> None:
    with pytest.raises(SourceError, match="exceeds the available context size"):
        llama_cpp.logprobs([1] * 1000)
    assert llama_cpp.logprobs(PROMPT).shape == (384,)


def test_a_file_that_does_not_load(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + b"\xff" * 40)
    with pytest.raises(SourceError, match=r"^llama.cpp cannot load a.gguf: \w+") as raised:
        Isolated("llama.cpp", LLAMACPP, {"path": str(tmp_path / "a.gguf"), "context": 8})
    assert "\n" not in str(raised.value)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        MissingExtraError, match=r"checking needs llama.cpp: pip install 'secateur\[llamacpp\]'"
    ):
        require_llamacpp("checking")
