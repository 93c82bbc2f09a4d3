"""Real tiny models behind the server: elastic ones with a ladder and GGUF files in llama.cpp."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import Maker
from tests.ladders import ladder_for
from tests.secateur_runtime.server.conftest import listening

from secateur.adapt.memory_model import MemoryModel
from secateur.adapt.serving.elastic_backend import Elasticity
from secateur.adapt.serving.launch import Serving, build, ends_of, serve
from secateur.core.progress import Silent
from secateur.model.full_model import load_whole
from secateur.model.handle import open_model
from secateur.runtime.torch import TorchBackend
from secateur_runtime.errors import SourceError, UsageError
from secateur_runtime.ladder import Ladder
from secateur_runtime.server.engine.job import Engine
from secateur_runtime.server.http.request_guard import RequestGuard

UNITS = ("1.ffn:32", "1.kv:1", "1.attn")

PROMPT = [5, 100, 33, 200, 77]

FORCED = 66

GREEDY: dict[str, Any] = {"prompt": PROMPT, "max_tokens": 12, "temperature": 0}


def make_ladder(model: Path, folder: Path) -> tuple[Path, Ladder]:
    opened = open_model(str(model))
    memory, ladder = MemoryModel(opened.graph), ladder_for(opened.graph, opened.digest, UNITS)
    rows = [
        replace(
            ladder.at(level),
            weight_bytes=memory.weights(ladder.kept(level)),
            kv_values=memory.kv_values(ladder.kept(level)),
        )
        for level in range(4)
    ]
    ladder = replace(ladder, whole=rows[0], rungs=tuple(rows[1:]))
    ladder.save(folder / "ladder.json")
    return folder / "ladder.json", ladder


def _engine(app: Any) -> Engine:
    """The engine of an application, for its end."""
    found: Engine = app.state.engine
    return found


@pytest.mark.parametrize(("backend", "kind"), [("elastic", ""), ("native", "bf16"), ("native", "f32")])
def test_an_elastic_model_answers_as_the_model_does(
    backend: str, kind: str, tiny: Maker, tmp_path: Path
) -> None:
    model = tiny("llama", dtype="bfloat16")
    path, _ = make_ladder(model, tmp_path)
    app = build(
        Serving(
            model=str(model), backend=backend, elasticity=Elasticity(folder=tmp_path, ladder=path, kind=kind)
        ),
        RequestGuard(),
        Silent(),
    )
    # Every token is forced, so that a near tie cannot send two right answers down different ways.
    asked = {"model": model.name, **GREEDY, "logprobs": 1, "logit_bias": {str(FORCED): 100}}
    with listening(app) as address:
        answer = httpx.post(f"{address}/v1/completions", json=asked, timeout=30).json()
        state = httpx.get(f"{address}/state").json()
    expected = TorchBackend(load_whole(open_model(str(model))))
    found = answer["choices"][0]["logprobs"]["token_logprobs"]
    wanted = [
        float(expected.logprobs([*PROMPT, *[FORCED] * made])[FORCED]) for made in range(GREEDY["max_tokens"])
    ]
    assert found == pytest.approx(wanted, abs=2e-3)
    assert (state["level"], state["levels"], state["engine"]) == (0, 4, backend)
    assert not _engine(app).healthy()


def test_a_server_from_python_keeps_its_ladders_in_the_cache(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Path] = []

    def stop(model: object, how: Elasticity, progress: object) -> None:
        given.append(how.folder)
        raise UsageError("enough")

    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path))
    monkeypatch.setattr("secateur.adapt.serving.elastic_backend.make_elastic", stop)
    with pytest.raises(UsageError, match="enough"):
        build(Serving(model=str(tiny("llama"))), RequestGuard(), Silent())
    assert given == [tmp_path]


def test_ends(tiny: Maker) -> None:
    source = open_model(str(tiny("llama"))).source
    assert ends_of(source, source.tokenizer()) == {2}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"backend": "elastik"}, UsageError, "did you mean elastic"),
        ({"threads": 9999}, UsageError, "--threads 9999: this machine lets us use"),
        ({"host": "0.0.0.0"}, UsageError, "lets other machines in"),
        ({"host": "192.0.2.1", "open": True}, SourceError, "cannot listen on 192.0.2.1"),
        ({"model": "nowhere"}, SourceError, "does not exist"),
    ],
)
def test_what_cannot_be_served(
    tiny: Maker, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    how = replace(Serving(model=str(tiny("llama")), port=0), **change)
    with pytest.raises(error, match=words):
        serve(how, Silent(), _never)


def _never(address: str) -> None:
    raise AssertionError("nothing listens")
