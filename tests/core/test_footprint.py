"""What a plan is said to take is what the written model takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import safe_open
from tests.conftest import Maker

from secateur.core.context import Settings
from secateur.core.footprint import footprint
from secateur.core.graph import Block, Graph, Group, Slice, TensorInfo
from secateur.core.plan import Plan
from secateur.model.handle import open_model
from secateur.pipeline.prune.apply import apply
from secateur_runtime.decoder.block_shape import BlockShape

KEEP = {"0.ffn": tuple(range(0, 96, 3)), "1.ffn": tuple(range(64)), "1.kv": (1,)}
CHANNELS = KEEP | {"hidden": tuple(range(0, 64, 2)), "0.head": (0, 3), "1.head": (0, 2, 3)}


@pytest.mark.parametrize("family", ["llama", "qwen2", "phi3", "gemma3_text"])
@pytest.mark.parametrize(
    ("keep", "drop"),
    [(KEEP, ()), ({}, ("1", "2.attn", "0.ffn")), (KEEP, ("0.attn", "2.ffn")), (CHANNELS, ("1.ffn",))],
)
def test_the_written_model_has_the_predicted_size(
    tiny: Maker, tmp_path: Path, family: str, keep: dict[str, tuple[int, ...]], drop: tuple[str, ...]
) -> None:
    model = open_model(str(tiny(family)))
    foreseen = footprint(model.graph, keep, drop, 2)
    made = apply(
        Plan(model=model.digest, keep=keep, drop=drop),
        str(tiny(family)),
        tmp_path / "out",
        settings=Settings(dtype="bfloat16"),
    )
    assert made.parameters == foreseen.parameters
    stored = 0
    for shard in (tmp_path / "out").glob("*.safetensors"):
        with safe_open(shard, "pt") as file:
            stored += sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118
    assert stored == foreseen.weight_bytes
    after = open_model(str(tmp_path / "out")).graph
    assert footprint(after, {}, (), 2) == foreseen
    assert foreseen.kv_bytes_per_token(4) == 4 * sum(
        2 * block.shape.n_kv_heads * block.shape.head_dim for block in after.blocks
    )


def test_rows_that_two_groups_own_leave_once() -> None:
    groups = (Group("0.kv", "kv", 2, (Slice("q", 0, 4),)), Group("0.head", "head", 4, (Slice("q", 0, 2),)))
    block = Block(0, "", BlockShape(4, 2, 2, 0), ("q",), (), groups, {"attn": ("q",), "ffn": ()})
    graph = Graph(
        "",
        3,
        1,
        True,
        {"q": TensorInfo((8, 3), "F32")},
        (block,),
        (),
        Group("hidden", "hidden", 3, ()),
        Group("vocab", "vocab", 1, ()),
    )
    assert footprint(graph, {"0.kv": (1,), "0.head": (0, 2)}, (), 4).parameters == 2 * 3
