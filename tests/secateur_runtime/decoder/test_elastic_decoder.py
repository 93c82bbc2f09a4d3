"""The elastic model in the kernels: its levels against models pruned offline, and its memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.ladders import ladder_for
from tests.runtime.elastic.steps import anonymous, stepped, transformers
from tests.uneven import save_uneven, widths
from torch import Tensor
from transformers import DynamicCache

from secateur.adapt.elastic.kernel_model import open_kernels
from secateur.adapt.elastic.torch_model import open_elastic
from secateur.core.ladder_plan import plan_of_level
from secateur.model.handle import ModelHandle, open_model
from secateur.pipeline.prune.apply import apply
from secateur.runtime.elastic.model import Elastic
from secateur_runtime.errors import SourceError
from secateur_runtime.ladder import Ladder

Maker = Callable[..., Path]


Opening = Callable[..., tuple[ModelHandle, Ladder, Elastic]]

UNITS = ("1.ffn:64", "1.kv:1", "0.kv:1", "1.ffn:40", "1.attn", "0.ffn:33", "1.ffn")

TOKENS = torch.randint(200, (90,), generator=torch.Generator().manual_seed(3)).tolist()


@pytest.fixture
def opened(tiny: Maker, tmp_path: Path) -> Opening:
    """Open a tiny model of a family as an elastic one in the kernels."""

    def opened(
        family: str, *, kind: str = "f32", units: tuple[str, ...] = UNITS, **config: Any
    ) -> tuple[ModelHandle, Ladder, Elastic]:
        model = open_model(str(tiny(family, **config)))
        ladder = ladder_for(model.graph, model.digest, units)
        return model, ladder, open_kernels(model, ladder, tmp_path / "weights.safetensors", kind=kind)

    return opened


@torch.no_grad()
def logits(model: Any, tokens: list[int]) -> Tensor:
    found: Tensor = model(torch.tensor([tokens]), use_cache=False).logits[0, -1]
    return found


def last(elastic: Elastic, tokens: list[int]) -> Tensor:
    with elastic.open(len(tokens)) as cache:
        return elastic.prefill(tokens, cache)


@pytest.mark.parametrize("family", ["llama", "mistral", "smollm3", "qwen2", "qwen3"])
def test_levels_predict_what_models_pruned_offline_predict(
    family: str, opened: Opening, tmp_path: Path
) -> None:
    """Down and up again, in steps and in leaps."""
    model, ladder, elastic = opened(family)
    wanted = {0: logits(transformers(model.source.ref), TOKENS)}
    for level in (2, 4, 6, 7):
        apply(plan_of_level(ladder, level), model.source.ref, tmp_path / str(level))
        wanted[level] = logits(transformers(tmp_path / str(level)), TOKENS)
        assert abs(wanted[level] - wanted[0]).max() > 1e-2
    for level in (0, 2, 4, 7, 6, 4, 0, 7, 2, 0):
        elastic.set_level(level)
        torch.testing.assert_close(last(elastic, TOKENS), wanted[level], atol=5e-5, rtol=0)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_bfloat16(family: str, opened: Opening, tmp_path: Path, isa: str) -> None:
    """Weights are those of the pruned model, whatever instructions multiply them."""
    model, ladder, elastic = opened(family, kind="bf16", dtype="bfloat16")
    for level in (5, 2):
        apply(plan_of_level(ladder, level), model.source.ref, tmp_path / str(level))
        elastic.set_level(level)
        found, wanted = (
            each.log_softmax(-1)
            for each in (last(elastic, TOKENS), logits(transformers(tmp_path / str(level)), TOKENS))
        )
        assert (wanted.exp() * (wanted - found)).sum() < 1e-5


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("width", [96, 128, 150])
@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_codes(kind: str, family: str, width: int, opened: Opening, tmp_path: Path) -> None:
    """Codes are those of the sorted whole weights: a level is the model with the retained rounded weights."""
    model, ladder, elastic = opened(family, kind=kind, intermediate_size=width)
    stored = load_file(tmp_path / "weights.safetensors")
    for level in (0, 3, 6, 2):
        pruned = transformers(model.source.ref)
        weights = dict(pruned.named_parameters())
        for name in (name for name in model.graph.outside if name + ".scales" in stored):
            weights[name].data = _held(stored[name], stored[name + ".scales"], weights[name].shape[1])
        kept = ladder.kept(level)
        for group in (group for block in model.graph.blocks for group in block.groups if group.name in kept):
            for place, part in enumerate(group.slices):
                name = f"{group.name}/{place}"
                whole = _held(
                    stored[name],
                    stored[name + ".scales"],
                    model.graph.tensors[part.tensor].shape[1],
                    part.dim,
                )
                whole[kept[group.name] * part.block :] = 0
                order = torch.tensor(ladder.order[group.name])
                back = torch.empty_like(whole).view(group.size, part.block, -1)
                back[order] = whole.view(group.size, part.block, -1)
                weights[part.tensor].data = (
                    back.view(whole.shape).T if part.dim else back.view(whole.shape)
                ).contiguous()
        elastic.set_level(level)
        torch.testing.assert_close(last(elastic, TOKENS), logits(pruned, TOKENS), atol=2e-3, rtol=0)


def _held(codes: Tensor, scales: Tensor, inputs: int, dim: int = 0) -> Tensor:
    """Return what codes and scales stand for, laid out as they are stored."""
    codes, scales = (codes.T, scales.T) if dim else (codes, scales)
    if codes.shape[1] == inputs:
        values = codes.float() - 128
    else:
        chunks = codes.view(len(codes), -1, 32)
        values = (torch.cat([chunks & 15, chunks >> 4], -1).float() - 8).flatten(1)[:, :inputs]
    found = values * scales.float().repeat_interleave(inputs // scales.shape[1], 1)
    return found.T.contiguous() if dim else found


@pytest.mark.parametrize(("kind", "far"), [("int8", 1e-3), ("int4", 0.1)])
def test_codes_are_near_the_model_pruned_offline(
    kind: str, far: float, opened: Opening, tmp_path: Path
) -> None:
    model, ladder, elastic = opened("qwen3", kind=kind, hidden_size=128)
    apply(plan_of_level(ladder, 4), model.source.ref, tmp_path / "pruned")
    elastic.set_level(4)
    found, wanted = (
        each.log_softmax(-1)
        for each in (last(elastic, TOKENS), logits(transformers(tmp_path / "pruned"), TOKENS))
    )
    assert 0 < (wanted.exp() * (wanted - found)).sum() < far


@pytest.mark.parametrize("config", [{}, {"attention_bias": True}])
def test_levels_change_in_the_middle_of_requests(opened: Opening, config: dict[str, Any]) -> None:
    """What went from a request's attention stays away from it.

    Its FFNs, and requests begun later, get all back; both decode in one batch.
    """
    model, _, elastic = opened("llama", **config)
    whole = transformers(model.source.ref)
    off, first_group = torch.zeros(()), torch.tensor([0.0, 1.0]).repeat_interleave(32)
    ffn_40, ffn_64 = ((torch.arange(96) >= gone).float() for gone in (56, 32))
    early, late = elastic.open(), elastic.open()
    early_past, late_past = DynamicCache(config=whole.config), DynamicCache(config=whole.config)

    torch.testing.assert_close(
        elastic.prefill(TOKENS[:10], early), stepped(whole, early_past, TOKENS[:10], {}), atol=5e-5, rtol=0
    )
    elastic.set_level(5)
    cut = {"layers.1.self_attn.o_proj": off, "layers.0.self_attn.o_proj": first_group}
    (row,) = elastic.decode([TOKENS[10]], [early])
    narrow = {"layers.1.mlp.down_proj": ffn_40}
    torch.testing.assert_close(row, stepped(whole, early_past, [TOKENS[10]], cut | narrow), atol=5e-5, rtol=0)
    elastic.set_level(1)
    assert (late.groups, early.groups) == ([1, 0, 2], [1, 0, 2])
    late.close()
    late, more = elastic.open(), elastic.open()
    more_past = DynamicCache(config=whole.config)
    wide = {"layers.1.mlp.down_proj": ffn_64}
    elastic.prefill(TOKENS[20:26], late)
    stepped(whole, late_past, TOKENS[20:26], wide)
    elastic.prefill(TOKENS[30:70], more)
    stepped(whole, more_past, TOKENS[30:70], wide)
    rows = elastic.decode([TOKENS[26], TOKENS[11], TOKENS[70]], [late, early, more])
    torch.testing.assert_close(rows[0], stepped(whole, late_past, [TOKENS[26]], wide), atol=5e-5, rtol=0)
    torch.testing.assert_close(
        rows[1], stepped(whole, early_past, [TOKENS[11]], cut | wide), atol=5e-5, rtol=0
    )
    torch.testing.assert_close(rows[2], stepped(whole, more_past, [TOKENS[70]], wide), atol=5e-5, rtol=0)
    mixed = elastic.forward([(early, TOKENS[12:15]), (late, [TOKENS[27]])])
    torch.testing.assert_close(
        mixed[0], stepped(whole, early_past, TOKENS[12:15], cut | wide), atol=5e-5, rtol=0
    )
    torch.testing.assert_close(mixed[1], stepped(whole, late_past, [TOKENS[27]], wide), atol=5e-5, rtol=0)


def test_blocks_of_unequal_width(tiny: Maker, tmp_path: Path) -> None:
    """One of them without an FFN."""
    shapes = widths([(4, 2, 96), (4, 2, 64), (2, 1, 0), (2, 2, 37)])
    model = open_model(str(save_uneven(tiny("qwen3", num_hidden_layers=4), tmp_path / "model", shapes)))
    ladder = ladder_for(model.graph, model.digest, ("1.ffn:32", "1.kv:1", "2.attn"))
    ours = open_kernels(model, ladder, tmp_path / "ours", kind="f32")
    theirs = open_elastic(model, ladder, tmp_path / "theirs", dtype=torch.float32)
    for level in (0, 3, 1):
        ours.set_level(level)
        theirs.set_level(level)
        torch.testing.assert_close(last(ours, TOKENS), last(theirs, TOKENS), atol=5e-5, rtol=0)


def test_more_requests_than_one_call_takes(opened: Opening) -> None:
    _, _, elastic = opened("llama")
    caches = [elastic.open(4) for _ in range(70)]
    for place, cache in enumerate(caches):
        elastic.prefill([place, place + 1], cache)
    rows = elastic.decode(range(70), caches)
    for place in (0, 63, 64, 69):
        torch.testing.assert_close(rows[place], last(elastic, [place, place + 1, place]), atol=5e-5, rtol=0)


@pytest.mark.parametrize("kind", ["bf16", pytest.param("int8", marks=pytest.mark.slow), "int4"])
def test_memory_of_what_goes_has_left_the_process(kind: str, opened: Opening) -> None:
    """Halves, and a half that gets narrower, as the system counts them; and it comes back."""
    # FFNs of 5 to 19 MB: a part of them lies in large pages, and what else the process takes meanwhile is
    # little beside them.
    sizes = {
        "hidden_size": 768,
        "intermediate_size": 4096,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    }
    _, _, elastic = opened("llama", kind=kind, units=("1.ffn:2048", "1.kv:2", "1.attn", "1.ffn"), **sizes)
    last(elastic, TOKENS)
    number = {"bf16": 2, "int8": 1 + 2 / 64, "int4": 0.5 + 2 / 32}[kind]
    ffn, attention = 3 * 768 * 4096 * number, 768 * (768 + 384 + 384 + 768) * number
    whole = last(elastic, TOKENS)
    levels = (
        (1, ffn / 2),
        (2, ffn / 2 + attention / 2),
        (3, ffn / 2 + attention),
        (4, ffn + attention),
        (1, ffn / 2),
        (0, 0),
    )
    # The heap of a process with other tests behind it grows at some moments, and large pages reach over an
    # end: what is not given back is missing every time.
    assert any(_as_computed(elastic, levels, max(400_000, attention / 5)) for _ in range(4))
    torch.testing.assert_close(last(elastic, TOKENS), whole, atol=0, rtol=0)


def _as_computed(elastic: Elastic, levels: Sequence[tuple[int, float]], within: float) -> bool:
    """Go from level to level; return whether the system and each change counted the freed bytes."""
    gc.collect()
    before, right = anonymous(), []
    for level, gone in levels:
        freed = before - anonymous()
        change = elastic.set_level(level)
        found = before - anonymous()
        right += [abs(found - gone) < within, abs(change.freed - (found - freed)) < within]
    return all(right)


@pytest.mark.parametrize("kv", [torch.float32, torch.float16])
def test_a_cache_takes_pages_as_it_fills_and_gives_them_back(
    kv: torch.dtype, opened: Opening, tmp_path: Path
) -> None:
    model, ladder, _ = opened(
        "llama",
        num_attention_heads=8,
        num_key_value_heads=8,
        head_dim=64,
        max_position_embeddings=4096,
        units=("1.kv:2", "1.attn"),
    )
    elastic = open_kernels(model, ladder, tmp_path / "weights.safetensors", kind="f32", kv=kv)
    text = TOKENS * 20
    last(elastic, text)
    before, cache = anonymous(), elastic.open()
    elastic.prefill(text, cache)
    each = 2 * 8 * len(text) * 64 * kv.itemsize
    assert cache.bytes == pytest.approx(3 * each, rel=0.03)
    assert anonymous() - before == pytest.approx(cache.bytes, abs=900_000)
    for level, rest in ((1, 2.25), (2, 2), (0, 2)):
        elastic.set_level(level)
        assert cache.bytes == pytest.approx(rest * each, rel=0.03)
    assert anonymous() - before == pytest.approx(cache.bytes, abs=900_000)
    cache.close()
    assert abs(anonymous() - before) < 900_000


def test_a_file_that_is_cut_short_changes_nothing(opened: Opening, tmp_path: Path) -> None:
    _, _, elastic = opened("llama")
    elastic.set_level(4)
    found = last(elastic, TOKENS)
    path = tmp_path / "weights.safetensors"
    with path.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(SourceError, match="ends at byte"):
        elastic.set_level(0)
    assert elastic.level == 4
    torch.testing.assert_close(last(elastic, TOKENS), found, atol=0, rtol=0)
