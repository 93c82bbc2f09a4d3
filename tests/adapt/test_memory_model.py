"""The memory model against what is stored and what the system counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tests.ladders import ladder_for
from tests.tiny_models import FAMILIES

from secateur.adapt.elastic.kernel_model import KINDS, open_kernels
from secateur.adapt.elastic.torch_model import open_elastic
from secateur.adapt.memory_model import KernelMemory, MemoryModel
from secateur.core.ladder_plan import plan_of_level
from secateur.model.handle import open_model
from secateur.pipeline.prune.apply import apply
from secateur_runtime.decoder.elastic_decoder import Kernels

Maker = Callable[..., Path]
UNITS = ("1.ffn:64", "1.kv:1", "0.kv:1", "1.attn", "0.ffn:32", "1.ffn")


def _stored(folder: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name).nbytes for name in file.keys()}  # noqa: SIM118
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_what_a_pruned_folder_holds(family: str, tiny: Maker, tmp_path: Path) -> None:
    """But for the norms of halves that are gone, which an elastic model keeps."""
    model = open_model(str(tiny(family)))
    ladder, memory = ladder_for(model.graph, model.digest, UNITS), MemoryModel(model.graph, torch.float32)
    assert (
        memory.weights({}) == memory.weights(ladder.kept(0)) == sum(_stored(Path(model.source.ref)).values())
    )
    apply(plan_of_level(ladder, 6), model.source.ref, tmp_path / "out")
    pruned = open_model(str(tmp_path / "out")).graph
    kept_norms = 4 * (model.graph.parameters - _within_groups(model.graph)) - 4 * (
        pruned.parameters - _within_groups(pruned)
    )
    assert memory.weights(ladder.kept(6)) - kept_norms == sum(_stored(tmp_path / "out").values())


def _within_groups(graph: Any) -> int:
    return sum(
        graph.tensors[name].numel
        for name in {part.tensor for block in graph.blocks for group in block.groups for part in group.slices}
    )


def test_caches_are_what_an_elastic_model_allocates(tiny: Maker, tmp_path: Path) -> None:
    model = open_model(str(tiny("qwen3")))
    ladder = ladder_for(model.graph, model.digest, UNITS)
    for kv in (torch.float32, torch.bfloat16):
        memory = MemoryModel(model.graph, torch.float32, kv)
        elastic = open_elastic(model, ladder, tmp_path / "weights.safetensors", dtype=torch.float32, kv=kv)
        for level in (0, 2, 4):
            elastic.set_level(level)
            cache = elastic.open()
            elastic.prefill(list(range(100)), cache)
            assert cache.bytes == memory.cache(ladder.kept(level), 1, 100)
            assert memory.kv_values(ladder.kept(level)) * kv.itemsize * 100 <= cache.bytes
            assert cache.close() == memory.cache(ladder.kept(level), 1, 100)


@pytest.mark.parametrize("kind", KINDS)
def test_the_kernels_take_what_is_counted(kind: str, tiny: Maker, tmp_path: Path) -> None:
    """Weights are those of the file, caches what is allocated, and a pass fits in what is counted."""
    model = open_model(str(tiny("qwen3", intermediate_size=128)))
    ladder = ladder_for(model.graph, model.digest, UNITS)
    memory = KernelMemory(model.graph, KINDS[kind], torch.float16)
    elastic = open_kernels(model, ladder, tmp_path / "weights.safetensors", kind=kind, kv=torch.float16)
    assert memory.weights({}) == sum(_stored(tmp_path).values())
    for level in (2, 4, 6):
        change = elastic.set_level(level)
        # A scale that some units of a group share goes with the last of them, and so do the codes of a chunk
        # of 64.
        shared = {"int8": 2, "int4": 16}.get(kind, 0) * model.graph.hidden_size
        assert 0 <= memory.weights({}) - change.freed - memory.weights(ladder.kept(level)) <= shared
        with elastic.open() as cache:
            elastic.prefill(list(range(96)), cache)
            assert cache.bytes == memory.cache(ladder.kept(level), 1, 96)
            assert memory.kv_values(ladder.kept(level)) * 2 * 96 <= cache.bytes
        elastic.set_level(0)
    body = elastic._body
    assert isinstance(body, Kernels)
    logits = 2 * 4 * 16 * model.graph.vocab_size
    assert (
        body.decoder._scratch.nbytes
        <= memory.activations(16, 100) - logits
        <= 1.5 * body.decoder._scratch.nbytes
    )


def test_operations_are_two_for_each_weight_of_the_linears(tiny: Maker) -> None:
    graph = open_model(str(tiny("phi3"))).graph
    assert MemoryModel(graph).flops({}) == 2 * (
        graph.vocab_size * graph.hidden_size
        + sum(one.out_features * one.in_features for one in graph.linears)
    )
    assert MemoryModel(graph).flops({"1.ffn": 0}) == MemoryModel(graph).flops({}) - 2 * 3 * 96 * 64
