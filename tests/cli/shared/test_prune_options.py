"""Which kind of pruning the options ask for, and which of them contradict each other."""

from __future__ import annotations

from typing import Any

import pytest

from secateur.cli.shared.prune_options import PruneOptions
from secateur_runtime.errors import UsageError


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"sparsity": "0.5"}, "weights"),
        ({"method": "wanda", "pattern": "2:4"}, "weights"),
        ({"target": ["params=80%"]}, "auto"),
        ({"method": "width", "ratio": 0.2}, "width"),
        ({"method": "depth", "drop_layers": 1}, "depth"),
        ({"method": "vocab", "ratio": 0.2}, "vocab"),
    ],
)
def test_kinds(given: dict[str, Any], kind: str) -> None:
    assert PruneOptions(**given).kind.name == kind


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "either --sparsity 0.5 or --pattern 2:4"),
        ({"sparsity": "0.5", "pattern": "2:4"}, "either --sparsity 0.5 or --pattern 2:4"),
        ({"pattern": "0.5"}, "a ratio goes to --sparsity"),
        ({"sparsity": "2:4"}, "give it to --pattern"),
        ({"sparsity": "0.5", "keep_heads": 2}, "--keep-heads belongs to pruning --method width"),
        (
            {"method": "depth", "ratio": 0.2, "align": 64},
            "--align belongs to pruning --method auto and --method vocab and --method width, not",
        ),
        ({"method": "width"}, "either --ratio 0.2 or --target"),
        ({"method": "vocab", "ratio": 0.2, "samples": 8}, "leave out --samples and --calib-window"),
        ({"method": "width", "target": ["parms=1"]}, "did you mean params"),
    ],
)
def test_contradictions(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PruneOptions(**given)


def test_goals_carry_what_was_given() -> None:
    from secateur.pipeline.prune.auto.decide import Auto
    from secateur.pipeline.prune.depth.decide import Depth
    from secateur.pipeline.prune.vocabulary import Vocab
    from secateur.pipeline.prune.weights.decide import Sparsity
    from secateur.pipeline.prune.width.decide import Width

    goals = [
        (PruneOptions(method="wanda", pattern="2:4"), Sparsity(sparsity="2:4", method="wanda")),
        (
            PruneOptions(method="width", units="ffn, kv", ratio=0.2, criterion="flap", dtype="float16"),
            Width(units=("ffn", "kv"), ratio=0.2, criterion="flap", dtype="float16"),
        ),
        (PruneOptions(method="depth", drop_layers=2, sub_blocks=True), Depth(drop_layers=2, sub_blocks=True)),
        (PruneOptions(target=["params=80%", "size=1GB"]), Auto(target="params=80%,size=1GB")),
        (PruneOptions(method="vocab", ratio=0.3, align=64), Vocab(ratio=0.3, align=64)),
    ]
    for given, goal in goals:
        assert given.goal() == goal
