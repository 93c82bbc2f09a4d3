"""The graph of a model made by hand: what it counts and in which order it lists."""

from __future__ import annotations

import pytest

from secateur.core.graph import Block, Graph, Group, Kind, Linear, Slice, TensorInfo
from secateur_runtime.decoder.block_shape import BlockShape


def make_block(index: int) -> Block:
    """A block of two linears of one stage and one of the next, listed in no order."""
    names = {"gate": (6, 4), "up": (6, 4), "down": (4, 6)}
    stages = {"down": 1, "gate": 0, "up": 0}
    linears = tuple(Linear(f"{index}.{name}", name, stage, *names[name]) for name, stage in stages.items())
    tensors = tuple(f"{index}.{name}" for name in names)
    ffn = Group(f"{index}.ffn", "ffn", 6, (Slice(f"{index}.gate", 0), Slice(f"{index}.down", 1)))
    return Block(
        index, f"{index}.", BlockShape(0, 0, 0, 6), tensors, linears, (ffn,), {"attn": (), "ffn": tensors}
    )


def make_graph() -> Graph:
    blocks = (make_block(0), make_block(1))
    tensors = {"embed": TensorInfo((5, 4), "F32"), "norm": TensorInfo((4,), "F32")}
    for block in blocks:
        for linear in block.linears:
            tensors[linear.tensor] = TensorInfo((linear.out_features, linear.in_features), "BF16")
    hidden = Group("hidden", "hidden", 4, (Slice("embed", 1), Slice("norm", 0)))
    vocab = Group("vocab", "vocab", 5, (Slice("embed", 0),))
    return Graph("llama", 4, 5, True, tensors, blocks, ("embed", "norm"), hidden, vocab)


@pytest.mark.parametrize(("shape", "numel"), [((), 1), ((7,), 7), ((3, 4), 12), ((2, 0, 5), 0)])
def test_a_tensor_has_the_product_of_its_sizes(shape: tuple[int, ...], numel: int) -> None:
    assert TensorInfo(shape, "F32").numel == numel


@pytest.mark.parametrize(
    ("kind", "part"), [("ffn", "ffn"), ("kv", "attn"), ("head", "attn"), ("hidden", ""), ("vocab", "")]
)
def test_a_group_belongs_to_the_sub_block_of_its_kind(kind: Kind, part: str) -> None:
    assert Group("any", kind, 1, ()).half == part


def test_stages_follow_the_forward_pass() -> None:
    stages = make_block(3).stages
    assert [[linear.module for linear in stage] for stage in stages] == [["gate", "up"], ["down"]]


def test_a_graph_lists_and_counts_everything_once() -> None:
    graph = make_graph()
    assert list(graph.groups) == ["0.ffn", "1.ffn", "hidden", "vocab"]
    assert all(group.name == name for name, group in graph.groups.items())
    assert [linear.tensor for linear in graph.linears] == [
        "0.down",
        "0.gate",
        "0.up",
        "1.down",
        "1.gate",
        "1.up",
    ]
    assert graph.parameters == 5 * 4 + 4 + 2 * 3 * 24
