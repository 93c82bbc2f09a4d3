"""The lazy search against a naive one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from tests.adapt.ranking.test_rank import HOW

from secateur.adapt.elastic.torch_model import build_body
from secateur.adapt.elastic.weights import prepare
from secateur.adapt.memory_model import MemoryModel
from secateur.adapt.ranking.greedy_search import Search, Steps
from secateur.adapt.ranking.rank import Rank, rank
from secateur.adapt.ranking.windowed_forward import Passing
from secateur.calibrate.calibration import Calibration, calibration_tokens
from secateur.core.progress import Silent
from secateur.model.handle import open_model
from secateur_runtime.ladder import Ladder, check_steps

Maker = Callable[..., Path]


CALIBRATION = Calibration(samples=3, window=32)


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
