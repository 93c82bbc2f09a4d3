"""Real tiny models behind the server: elastic ones with a ladder and GGUF files in llama.cpp."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import Maker
from tests.ladders import ladder_for
from tests.secateur_runtime.server.conftest import listening

from secateur.adapt.memory_model import MemoryModel
from secateur.adapt.serving.elastic_backend import Elasticity, make_elastic, warm
from secateur.adapt.serving.launch import Serving, build, ends_of, serve
from secateur.cli.main import run as main
from secateur.core.ladder_plan import plan_of_level
from secateur.core.progress import Silent
from secateur.model.full_model import load_whole
from secateur.model.handle import open_model
from secateur.pipeline.prune.apply import apply
from secateur.runtime.torch import TorchBackend
from secateur_runtime.errors import LadderError, SourceError, UsageError
from secateur_runtime.ladder import Ladder
from secateur_runtime.ladder_file import read_ladder
from secateur_runtime.policies import Observation, make_policy
from secateur_runtime.read_costs import priced
from secateur_runtime.sensors import MemoryBound, Sensed
from secateur_runtime.server.engine.job import Engine
from secateur_runtime.server.engine.memory_controller import ControllerSettings, MemoryController
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


@pytest.mark.parametrize("kind", ["", "bf16"])
def test_a_level_that_the_server_takes_is_the_pruned_model(kind: str, tiny: Maker, tmp_path: Path) -> None:
    model = tiny("llama", dtype="bfloat16")
    path, ladder = make_ladder(model, tmp_path)
    stepped, choices, policy = make_elastic(
        open_model(str(model)), Elasticity(folder=tmp_path, ladder=path, policy="greedy", kind=kind), Silent()
    )
    warm(stepped)
    budget = ladder.need(2, batch=1, tokens=1) + int(choices.activations(1, 1)) + 10
    controller = MemoryController(
        stepped,
        choices,
        policy,
        lambda: Sensed((MemoryBound("test", budget, stepped.weights),)),
        ControllerSettings(headroom=0, least=0),
    )
    controller.settle([], 0)
    assert tuple(stepped.units) == UNITS[:2]
    assert stepped.weights == ladder.at(2).weight_bytes
    apply(plan_of_level(ladder, 2), str(model), tmp_path / "pruned")
    pruned = TorchBackend(load_whole(open_model(str(tmp_path / "pruned"))))
    cache = stepped.open(20)
    logits = stepped.prefill(PROMPT[:3], cache)
    logits = stepped.decode([PROMPT[3]], [cache])[0]
    logits = stepped.decode([PROMPT[4]], [cache])[0]
    shifted = logits - logits.max() - (pruned.logprobs(PROMPT) - pruned.logprobs(PROMPT).max())
    assert abs(shifted).max() < 2e-3


class _Notes(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


def _in_this_process(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
    """Run a verb as a process of its own would."""
    assert command[:3] == [sys.executable, "-m", "secateur"]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(sys, "argv", command[2:])
        main()
        sys.exit(0)
    return subprocess.CompletedProcess(command, int(stopped.value.code or 0))


def test_a_model_without_a_ladder_is_ranked_once(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", _in_this_process)
    notes = _Notes()
    for _ in range(2):
        _, choices, _ = make_elastic(open_model(str(tiny("llama"))), Elasticity(folder=tmp_path), notes)
        assert {unit.partition(".")[0] for unit in choices.units} <= {"0", "1", "2"}
        assert priced(read_ladder(next(tmp_path.glob("*/ladder.json"))))
    (path,) = tmp_path.glob("*/ladder.json")
    assert [line.startswith("no ladder of") and str(path) in line for line in notes.lines] == [True, False]


@pytest.mark.parametrize(("prices", "name"), [(True, "cost-aware"), (False, "greedy")])
def test_who_decides_where_nobody_said(prices: bool, name: str, tiny: Maker, tmp_path: Path) -> None:
    path, ladder = make_ladder(tiny("llama"), tmp_path)
    # The last step is the cheapest on its own.
    costs = {rung.unit: ladder.loss + (len(ladder.rungs) - place) for place, rung in enumerate(ladder.rungs)}
    replace(ladder, costs=(costs if prices else {},)).save(path, overwrite=True)
    _, choices, policy = make_elastic(
        open_model(str(tiny("llama"))), Elasticity(folder=tmp_path, ladder=path), Silent()
    )
    seen = Observation(batch=1, tokens=8, available=choices.whole(1, 8) - 1)
    assert policy(seen) == make_policy(name, choices)(seen)
    assert (make_policy("cost-aware", choices)(seen) != make_policy("greedy", choices)(seen)) == prices


def test_a_policy_that_is_not_known_is_refused_before_anything_is_ranked(tiny: Maker, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean greedy"):
        make_elastic(open_model(str(tiny("llama"))), Elasticity(folder=tmp_path, policy="gredy"), _Notes())
    assert not list(tmp_path.glob("*/ladder.json*"))


def test_a_ranking_that_fails_is_one_line(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("secateur.adapt.serving.elastic_backend.sys.executable", "/bin/false")
    with pytest.raises(UsageError, match="says why"):
        make_elastic(open_model(str(tiny("llama"))), Elasticity(folder=tmp_path), Silent())
    assert not list(tmp_path.glob("*/ladder.json*"))


def test_a_ladder_of_another_model(tiny: Maker, tmp_path: Path) -> None:
    path, _ = make_ladder(tiny("llama"), tmp_path)
    with pytest.raises(LadderError, match="was made for"):
        make_elastic(open_model(str(tiny("qwen2"))), Elasticity(folder=tmp_path, ladder=path), Silent())


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


def test_ends(tiny: Maker) -> None:
    source = open_model(str(tiny("llama"))).source
    assert ends_of(source, source.tokenizer()) == {2}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"backend": "elastik"}, UsageError, "did you mean elastic"),
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


def test_llama_cpp_wants_a_file(tiny: Maker) -> None:
    with pytest.raises(UsageError, match="secateur export"):
        build(Serving(model=str(tiny("llama")), backend="llamacpp"), RequestGuard(), Silent())
