"""What rules protect: blocks at either end, and tensors, groups and sub-blocks by glob."""

from __future__ import annotations

import pytest
from tests.conftest import Maker

from secateur.allocate.protect import layers_named, protected, protected_groups, protected_halves
from secateur.core.graph import Graph
from secateur.model.handle import open_model
from secateur_runtime.errors import UsageError


@pytest.fixture
def graph(tiny: Maker) -> Graph:
    """Three blocks of seven linears each."""
    return open_model(str(tiny("llama"))).graph


def test_first_and_last_are_whole_blocks(graph: Graph) -> None:
    tensors = protected(graph, ["first=1,last=1"])
    assert {name.split(".")[2] for name in tensors} == {"0", "2"}
    assert len(tensors) == 2 * 7
    assert len(protected(graph, ["last=9"])) == 3 * 7
    assert protected_groups(graph, ["first=2"]) == {"0.ffn", "0.kv", "1.ffn", "1.kv"} | {
        name for name in graph.groups if name in ("0.head", "1.head")
    }
    assert protected_halves(graph, ["last=1"]) == {"2.attn", "2.ffn"}


def test_globs_match_names_of_tensors_groups_and_sub_blocks(graph: Graph) -> None:
    assert protected(graph, ["*.1.*.down_proj.weight", " *.2.*.q_proj.weight "]) == {
        "model.layers.1.mlp.down_proj.weight",
        "model.layers.2.self_attn.q_proj.weight",
    }
    assert protected_groups(graph, ["*.kv"]) == {"0.kv", "1.kv", "2.kv"}
    assert protected_groups(graph, ["*.1.mlp.up_proj.weight"]) == {"1.ffn"}
    assert protected_halves(graph, ["*.attn"]) == {"0.attn", "1.attn", "2.attn"}
    assert protected_halves(graph, ["1"]) == {"1.attn", "1.ffn"}
    assert protected_halves(graph, ["model.layers.0.mlp.*"]) == {"0.ffn"}


def test_no_rules_protect_nothing(graph: Graph) -> None:
    assert protected(graph, []) == frozenset()


@pytest.mark.parametrize("rule", ["*.missing", "first=0", "first=x", ""])
def test_a_rule_that_protects_nothing_is_refused(graph: Graph, rule: str) -> None:
    with pytest.raises(UsageError, match=r"--protect .* matches no prunable tensor; use first=N"):
        protected(graph, [rule])
    with pytest.raises(UsageError, match="matches no block or sub-block"):
        protected_halves(graph, [rule])


def test_layers_are_numbers_and_spans(graph: Graph) -> None:
    assert layers_named(graph, "0-1") == {0, 1}
    assert layers_named(graph, "0, 2") == {0, 2}
    for wrong in ("3", "2-1", "x", "", "0-3"):
        with pytest.raises(UsageError, match=r"names no blocks of this model, which has 0-2"):
            layers_named(graph, wrong)
