"""Orders and what they cost, against brute force."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import Maker
from tests.problems import make_stats

from secateur.criteria import CRITERIA
from secateur.model.handle import open_model
from secateur.pipeline.prune.width.unit_ranking import _errors_of_leaving, price, scorer_for
from secateur_runtime.errors import UsageError


def test_errors_are_those_of_the_outputs_without_what_left() -> None:
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(8, 12, generator=generator)
    inputs = torch.randn(200, 8, generator=generator) @ mixed + 1
    weight = torch.randn(5, 12, generator=generator)
    steps = ((3, 0), (1, 5), (2, 4))
    errors = _errors_of_leaving(weight, make_stats(inputs), steps, 2)
    gone: list[int] = []
    expected = [0.0]
    for step in steps:
        gone += [column for unit in step for column in (2 * unit, 2 * unit + 1)]
        expected.append(float((inputs[:, gone] @ weight[:, gone].T).square().sum(1).mean()))
    assert errors == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("family", ["llama", "phi3", "qwen2"])
def test_a_price_is_what_a_unit_holds(tiny: Maker, family: str) -> None:
    graph = open_model(str(tiny(family))).graph
    biased = family == "qwen2"
    assert price(graph, graph.groups["0.ffn"]) == 3 * 64
    assert price(graph, graph.groups["0.kv"]) == (64 + biased) * (32 + 16 + 16) + 64 * 32
    assert price(graph, graph.groups["0.head"]) == (64 + biased) * 16 + 64 * 16
    assert price(graph, graph.hidden) == sum(
        info.numel // 64 for name, info in graph.tensors.items() if not name.endswith("_proj.bias")
    )


def test_names_that_score_nothing_are_refused_with_those_that_do() -> None:
    with pytest.raises(UsageError, match="did you mean contribution"):
        scorer_for("contributon", "ffn")
    with pytest.raises(UsageError, match="known: magnitude, minitron"):
        scorer_for("ria", "hidden")
    assert scorer_for(None, "hidden").name == "minitron"
    assert scorer_for(None, "kv").function is None
    assert {name for name in CRITERIA if scorer_for(name, "ffn").name != name} == set()
