"""The search against a naive one, and the ladder that comes out."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from secateur.adapt.elastic.torch_model import build_body, open_elastic
from secateur.adapt.elastic.weights import prepare
from secateur.adapt.memory_model import MemoryModel
from secateur.adapt.ranking.greedy_search import Search, Steps
from secateur.adapt.ranking.rank import Rank, rank
from secateur.adapt.ranking.windowed_forward import Passing
from secateur.calibrate.calibration import Calibration, calibration_tokens
from secateur.core.ladder_plan import check_ladder, plan_of_level
from secateur.core.progress import Silent
from secateur.model.handle import open_model
from secateur.pipeline.prune.apply import apply
from secateur_runtime.errors import OutputError, UsageError
from secateur_runtime.ladder import Ladder, check_steps
from secateur_runtime.ladder_file import parse_ladder, read_ladder

Maker = Callable[..., Path]
CALIBRATION = Calibration(samples=3, window=32)
HOW = Rank(
    calibration=CALIBRATION, probe=2, widths=3, groups=True, floor=0.0, context=512, dtype=torch.float32
)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "phi3", "mistral"])
def test_every_loss_is_that_of_the_model_pruned_offline(family: str, tiny: Maker, tmp_path: Path) -> None:
    """The whole chain, from the order of the units to the states kept between removals."""
    model = open_model(str(tiny(family)))
    ladder, _ = rank(model, HOW, out=tmp_path / "ladder.json")
    assert [path.name for path in tmp_path.iterdir()] == ["ladder.json"]
    assert read_ladder(tmp_path / "ladder.json") == ladder
    assert parse_ladder(ladder.to_json()) == ladder
    check_ladder(ladder, model.graph, model.digest)
    tokens = calibration_tokens(model, CALIBRATION, 0)[:2]
    for level in (0, 3, len(ladder) - 1):
        apply(plan_of_level(ladder, level), model.source.ref, tmp_path / str(level))
        pruned = AutoModelForCausalLM.from_pretrained(tmp_path / str(level), dtype=torch.float32).eval()
        with torch.no_grad():
            logits = pruned(tokens, use_cache=False).logits
        assert ladder.at(level).loss == pytest.approx(
            float(cross_entropy(logits[:, 7:-1].flatten(0, 1), tokens[:, 8:].flatten())), abs=2e-5
        )
        sizes = open_model(str(tmp_path / str(level))).graph
        assert ladder.at(level).kv_values == MemoryModel(sizes).kv_values({})
        assert ladder.at(level).flops == MemoryModel(sizes).flops({})


def test_a_killed_ranking_goes_on_where_it_was(tiny: Maker, tmp_path: Path) -> None:
    """Killed outright twice, by a process of its own.

    What comes out is byte for byte what an uninterrupted run writes.
    """
    model, out = tiny("llama", num_hidden_layers=5), tmp_path / "ladder.json"
    whole, whole_cost = rank(open_model(str(model)), HOW, out=tmp_path / "whole.json")
    source = f"""
import os, sys
from secateur.adapt.ranking import rank, resume
from secateur.model.handle import open_model
from tests.adapt.ranking.test_rank import HOW

class Killed(resume.Unfinished):
    def keep(self, search, rungs):
        super().keep(search, rungs)
        if len(rungs) == last:
            os.kill(os.getpid(), 9)

resume.Unfinished = Killed
for last in (2, 5):
    if not os.fork():
        rank.rank(open_model({str(model)!r}), HOW, out=__import__("pathlib").Path({str(out)!r}))
        os._exit(0)
    print(-os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
    sys.stdin.readline()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", source],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    for _ in (2, 5):
        assert process.stdout.readline() == f"{signal.SIGKILL}\n"
        assert not out.exists()
        with pytest.raises(OutputError, match="unfinished run with other settings"):
            rank(open_model(str(model)), replace(HOW, floor=0.5), out=out)
        process.stdin.write("\n")
        process.stdin.flush()
    process.communicate()
    notes = _Counted()
    ladder, cost = rank(open_model(str(model)), HOW, out=out, progress=notes)
    assert (ladder, cost) == (whole, whole_cost)
    assert out.read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert notes.ranked == len(whole) - 1 - 5
    assert not (tmp_path / "ladder.json.partial").exists()


class _Counted(Silent):
    """Counts the steps of the search."""

    def __init__(self) -> None:
        self.task, self.ranked = "", 0

    def start(self, task: str, total: int, done: int = 0) -> None:
        self.task = task

    def step(self, detail: str = "") -> None:
        self.ranked += self.task == "rank"


def test_everything_but_the_outer_blocks_can_go(tiny: Maker) -> None:
    model = open_model(str(tiny("llama", num_hidden_layers=4)))
    ladder, cost = rank(model, HOW)
    last = ladder.kept(len(ladder) - 1)
    assert last == {
        f"{block}.{kind}": 0 if block in (1, 2) else least
        for block in range(4)
        for kind, least in (("kv", 1), ("ffn", 32))
    }
    check_steps(ladder)
    assert len(ladder.costs) == len(ladder)
    assert all(rung.unit in row for rung, row in zip(ladder.rungs, ladder.costs[:-1], strict=True))
    assert all(row[rung.unit] == rung.loss for rung, row in zip(ladder.rungs, ladder.costs[:-1], strict=True))
    assert 0 < cost.halves < cost.naive


def test_floor_and_protection_hold(tiny: Maker) -> None:
    model = open_model(str(tiny("llama", num_hidden_layers=4)))
    memory = MemoryModel(model.graph, torch.float32)

    def share(ladder: Ladder, level: int) -> float:
        taken = [one.weight_bytes + one.kv_values * 4 * 512 for one in (ladder.at(0), ladder.at(level))]
        return taken[1] / taken[0]

    ladder, _ = rank(
        model, Rank(calibration=CALIBRATION, probe=1, floor=0.7, context=512, dtype=torch.float32)
    )
    assert share(ladder, len(ladder) - 1) <= 0.7 < share(ladder, len(ladder) - 2)
    assert ladder.whole.weight_bytes == memory.weights({})
    ladder, _ = rank(
        model, Rank(calibration=CALIBRATION, probe=1, floor=0, protect=("*.kv", "1.ffn"), groups=False)
    )
    assert {rung.unit.partition(":")[0] for rung in ladder.rungs} == {"0.ffn", "2.ffn", "3.ffn"}


def test_the_lazy_search_finds_what_a_naive_one_finds(tiny: Maker, tmp_path: Path) -> None:
    """At the first step, where every unit is measured before influence is believed."""
    model = open_model(str(tiny("llama", num_hidden_layers=4)))
    order = {
        group.name: tuple(range(group.size))
        for block in model.graph.blocks
        for group in block.groups
        if group.kind in ("kv", "ffn")
    }
    ladder = Ladder(model=model.digest, order=order, whole=rank(model, HOW)[0].whole, rungs=())
    path = tmp_path / "weights.safetensors"
    body = build_body(model, prepare(model, ladder, path, torch.float32), path)
    passing = Passing(body, model.graph, calibration_tokens(model, CALIBRATION, 0)[:2], 24)
    memory = MemoryModel(model.graph, torch.float32)
    search = Search(passing, memory, Steps(widths=1, groups=False, context=0))
    naive = {}
    for unit in ("1.attn", "1.ffn", "2.attn", "2.ffn"):
        states = passing.embedded()
        for name in passing.halves:
            gone = name == unit.replace("attn", "kv")
            states = passing.through(name, 0 if gone else len(order[name]), states)
        kept = {unit.replace("attn", "kv"): 0}
        naive[unit] = (passing.loss(states) - search.loss) / (memory.weights({}) - memory.weights(kept))
    first = next(search.rungs(0.0, Silent()))
    assert first.unit == min(naive, key=lambda unit: naive[unit])


def test_what_is_ranked_serves(tiny: Maker, tmp_path: Path) -> None:
    model = open_model(str(tiny("qwen2")))
    ladder, _ = rank(model, HOW)
    elastic = open_elastic(model, ladder, tmp_path / "weights.safetensors")
    assert elastic.set_level(len(ladder) - 1).freed > 0
    assert elastic.generate([1, 2, 3], 4).tokens


@pytest.mark.parametrize(
    "wrong",
    [
        {"floor": 1.0},
        {"floor": -0.1},
        {"widths": 0},
        {"probe": 0},
        {"criterion": "none such"},
        {"protect": ("nothing",)},
    ],
)
def test_what_cannot_work_is_one_line(wrong: dict[str, object], tiny: Maker) -> None:
    with pytest.raises(UsageError) as error:
        rank(open_model(str(tiny("llama"))), Rank(calibration=CALIBRATION, **wrong))  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
