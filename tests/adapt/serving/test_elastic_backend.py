"""Elastic models for the server: ladders found or made, and levels that are pruned models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.adapt.serving.test_launch import PROMPT, UNITS, make_ladder
from tests.conftest import Maker

from secateur.adapt.serving import elastic_backend
from secateur.adapt.serving.elastic_backend import Elasticity, make_elastic, warm
from secateur.adapt.serving.ladder_worker import rank_and_price
from secateur.core.ladder_plan import plan_of_level
from secateur.core.progress import Silent
from secateur.model.full_model import load_whole
from secateur.model.handle import open_model
from secateur.pipeline.prune.apply import apply
from secateur.runtime.torch import TorchBackend
from secateur_runtime.errors import LadderError, OutputError, UsageError
from secateur_runtime.ladder_file import read_ladder
from secateur_runtime.policies import Observation, make_policy
from secateur_runtime.read_costs import priced
from secateur_runtime.sensors import MemoryBound, Sensed
from secateur_runtime.server.engine.memory_controller import ControllerSettings, MemoryController


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


def test_a_model_without_a_ladder_is_ranked_once(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        elastic_backend, "make_ladder", lambda ref, path, _, told: rank_and_price(ref, path, told)
    )
    notes = _Notes()
    for _ in range(2):
        _, choices, _ = make_elastic(open_model(str(tiny("llama"))), Elasticity(folder=tmp_path), notes)
        assert {unit.partition(".")[0] for unit in choices.units} <= {"0", "1", "2"}
        assert priced(read_ladder(next(tmp_path.glob("*/ladder.json"))))
    (path,) = tmp_path.glob("*/ladder.json")
    assert [str(path) in line for line in notes.lines if line.startswith("no ladder of")] == [True]
    assert [line.startswith("ranked and priced in") for line in notes.lines].count(True) == 1


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
    monkeypatch.setattr("secateur.adapt.serving.ladder_worker.sys.executable", "/bin/false")
    with pytest.raises(UsageError, match=r"^no ladder of .* could be made \(.*\): --ladder takes one$"):
        make_elastic(open_model(str(tiny("llama"))), Elasticity(folder=tmp_path), Silent())
    assert not list(tmp_path.glob("*/ladder.json*"))


def test_a_folder_that_cannot_be_written_is_one_line(tiny: Maker, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=r"^cannot write .*file.*: Not a directory$"):
        make_elastic(open_model(str(tiny("llama"))), Elasticity(folder=tmp_path / "file"), Silent())


def test_a_ladder_of_another_model(tiny: Maker, tmp_path: Path) -> None:
    path, _ = make_ladder(tiny("llama"), tmp_path)
    with pytest.raises(LadderError, match="was made for"):
        make_elastic(open_model(str(tiny("qwen2"))), Elasticity(folder=tmp_path, ladder=path), Silent())
