"""GGUF files in llama.cpp behind the server."""

from __future__ import annotations

import httpx
import pytest
from tests.adapt.serving.test_launch import GREEDY, PROMPT
from tests.conftest import Maker
from tests.secateur_runtime.server.conftest import listening

from secateur.adapt.serving.launch import Serving, build
from secateur.core.progress import Silent
from secateur.model.full_model import load_whole
from secateur.model.handle import open_model
from secateur.runtime.torch import TorchBackend
from secateur_runtime.errors import UsageError
from secateur_runtime.server.http.request_guard import RequestGuard


def test_llama_cpp_answers(tiny_gguf: Maker, tiny: Maker) -> None:
    pytest.importorskip("xllamacpp", reason="pip install 'secateur[llamacpp]'")
    path = tiny_gguf("llama")
    app = build(Serving(model=str(path), backend="llamacpp", context=128), RequestGuard(), Silent())
    body = {"model": "llama", **GREEDY, "max_tokens": 8, "logprobs": 2, "logit_bias": {"0": -100, "2": -100}}
    with listening(app) as address:
        answer = httpx.post(f"{address}/v1/completions", json=body, timeout=30).json()
        streamed = httpx.post(
            f"{address}/v1/completions",
            json={**body, "stream": True, "stream_options": {"include_usage": True}},
            timeout=30,
        ).text
        stopped = httpx.post(
            f"{address}/v1/completions", json={**body, "stop": answer["choices"][0]["text"][2:4]}, timeout=30
        ).json()
    assert "choices" in answer, answer
    choice = answer["choices"][0]
    assert (choice["finish_reason"], answer["usage"]["completion_tokens"]) == ("length", 8)
    first = TorchBackend(load_whole(open_model(str(tiny("llama"))))).logprobs(PROMPT)
    assert choice["logprobs"]["token_logprobs"][0] == pytest.approx(float(first[3:].max()), abs=0.05)
    assert '"completion_tokens":8' in streamed
    assert streamed.endswith("data: [DONE]\n\n")
    assert (stopped["choices"][0]["text"], stopped["choices"][0]["finish_reason"]) == (
        choice["text"][:2],
        "stop",
    )


def test_llama_cpp_wants_a_file(tiny: Maker) -> None:
    with pytest.raises(UsageError, match="secateur export"):
        build(Serving(model=str(tiny("llama")), backend="llamacpp"), RequestGuard(), Silent())
