"""The elastic model against models that were pruned offline, and against transformers step by step."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.ladders import ladder_for
from tests.runtime.elastic.steps import stepped, transformers
from tests.tiny_models import FAMILIES
from torch import Tensor
from transformers import DynamicCache

from secateur.adapt.elastic.torch_model import open_elastic
from secateur.core.ladder_plan import plan_of_level, plan_of_units
from secateur.model.handle import ModelHandle, open_model
from secateur.pipeline.prune.apply import apply
from secateur.runtime.elastic.model import Elastic
from secateur_runtime.errors import LadderError, UsageError
from secateur_runtime.ladder import Ladder

Maker = Callable[..., Path]
UNITS = ("1.ffn:64", "1.kv:1", "0.kv:1", "1.ffn:32", "1.attn", "0.ffn:32", "1.ffn")
TOKENS = torch.randint(200, (40,), generator=torch.Generator().manual_seed(3)).tolist()


@pytest.fixture
def opened(tiny: Maker, tmp_path: Path) -> Callable[..., tuple[ModelHandle, Ladder, Elastic]]:
    """Open a tiny model of a family as an elastic one."""

    def opened(
        family: str, *, level: int = 0, kind: torch.dtype = torch.float32, **config: Any
    ) -> tuple[ModelHandle, Ladder, Elastic]:
        model = open_model(str(tiny(family, **config)))
        ladder = ladder_for(model.graph, model.digest, UNITS)
        return (
            model,
            ladder,
            open_elastic(model, ladder, tmp_path / "weights.safetensors", level=level, dtype=kind),
        )

    return opened


@torch.no_grad()
def _logprobs(model: Any, tokens: list[int]) -> Tensor:
    return torch.log_softmax(
        model(torch.tensor([tokens]), use_cache=False).logits[0, -1].double(), -1
    ).float()


def _close(found: Any, meant: Tensor) -> None:
    torch.testing.assert_close(torch.as_tensor(found), meant, atol=2e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_levels_predict_what_models_pruned_offline_predict(
    family: str, opened: Callable[..., Any], tmp_path: Path
) -> None:
    model, ladder, elastic = opened(family)
    _close(elastic.logprobs(TOKENS), _logprobs(transformers(model.source.ref), TOKENS))
    whole = elastic.logprobs(TOKENS)
    for level in (4, 7):
        apply(plan_of_level(ladder, level), model.source.ref, tmp_path / str(level))
        elastic.set_level(level)
        found = elastic.logprobs(TOKENS)
        _close(found, _logprobs(transformers(tmp_path / str(level)), TOKENS))
        assert abs(found - whole).max() > 1e-2
    elastic.set_level(0)
    assert (elastic.logprobs(TOKENS) == whole).all()


@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_steps_out_of_order_predict_what_their_plan_predicts(
    family: str, opened: Callable[..., Any], tmp_path: Path
) -> None:
    model, ladder, elastic = opened(family)
    chosen = ["1.kv:1", "0.kv:1", "0.ffn:32", "1.attn"]
    apply(plan_of_units(ladder, chosen), model.source.ref, tmp_path / "out")
    elastic.set_units(chosen)
    _close(elastic.logprobs(TOKENS), _logprobs(transformers(tmp_path / "out"), TOKENS))
    assert (elastic.units, elastic.level) == (tuple(chosen), 4)
    assert plan_of_units(ladder, chosen) != plan_of_level(ladder, 4)


@pytest.mark.parametrize("family", ["llama", "phi3", "gemma3_text"])
def test_bfloat16_weights_are_computed_with_exactly(
    family: str, opened: Callable[..., Any], tmp_path: Path
) -> None:
    model, ladder, elastic = opened(family, level=5, kind=torch.bfloat16, dtype="bfloat16")
    apply(plan_of_level(ladder, 5), model.source.ref, tmp_path / "pruned")
    pruned = transformers(tmp_path / "pruned")
    _close(elastic.logprobs(TOKENS), _logprobs(pruned, TOKENS))


@pytest.mark.parametrize("family", FAMILIES)
def test_requests_of_different_lengths_decode_together(family: str, opened: Callable[..., Any]) -> None:
    """Past the window of those families that have one, and in chunks of uneven size."""
    model, _, elastic = opened(family)
    whole = transformers(model.source.ref)
    lengths, caches = (3, 30, 17), [elastic.open(60) for _ in range(3)]
    for length, cache in zip(lengths, caches, strict=True):
        elastic.prefill(TOKENS[: length - 2], cache)
        elastic.forward([(cache, TOKENS[length - 2 : length])])
    for more in range(8):
        logits = elastic.decode([TOKENS[length + more] for length in lengths], caches)
        for row, length in zip(logits, lengths, strict=True):
            _close(torch.log_softmax(row.double(), -1).float(), _logprobs(whole, TOKENS[: length + more + 1]))


@pytest.mark.parametrize("config", [{}, {"attention_bias": True}])
def test_levels_change_in_the_middle_of_requests(opened: Callable[..., Any], config: dict[str, Any]) -> None:
    """What went from a request's attention stays away from it.

    Its FFNs, and requests begun later, get all back.
    """
    model, _, elastic = opened("llama", **config)
    whole = transformers(model.source.ref)
    off, first_group = torch.zeros(()), torch.tensor([0.0, 1.0]).repeat_interleave(32)
    ffn_32 = (torch.arange(96) >= 64).float()
    early, late = elastic.open(), elastic.open()
    early_past, late_past = DynamicCache(config=whole.config), DynamicCache(config=whole.config)

    torch.testing.assert_close(
        elastic.prefill(TOKENS[:10], early), stepped(whole, early_past, TOKENS[:10], {}), atol=2e-5, rtol=0
    )
    elastic.set_level(5)
    cut = {"layers.1.self_attn.o_proj": off, "layers.0.self_attn.o_proj": first_group}
    narrow = {"layers.1.mlp.down_proj": ffn_32}
    (row,) = elastic.decode([TOKENS[10]], [early])
    torch.testing.assert_close(row, stepped(whole, early_past, [TOKENS[10]], cut | narrow), atol=2e-5, rtol=0)
    elastic.set_level(1)
    assert (late.groups, early.groups) == ([1, 0, 2], [1, 0, 2])
    late.close()
    late = elastic.open()
    elastic.prefill(TOKENS[20:26], late)
    wide = {"layers.1.mlp.down_proj": (torch.arange(96) >= 32).float()}
    stepped(whole, late_past, TOKENS[20:26], wide)
    rows = elastic.decode([TOKENS[11], TOKENS[26]], [early, late])
    torch.testing.assert_close(
        rows[0], stepped(whole, early_past, [TOKENS[11]], cut | wide), atol=2e-5, rtol=0
    )
    torch.testing.assert_close(rows[1], stepped(whole, late_past, [TOKENS[26]], wide), atol=2e-5, rtol=0)


def test_generates_what_transformers_generates(opened: Callable[..., Any]) -> None:
    model, _, elastic = opened("qwen3")
    made = transformers(model.source.ref).generate(
        torch.tensor([TOKENS[:8]]), max_new_tokens=12, min_new_tokens=12, do_sample=False
    )
    assert elastic.generate(TOKENS[:8], 12).tokens == tuple(made[0, 8:].tolist())
    assert elastic.caches == ()


def test_a_request_cancelled_during_a_pass_does_not_disturb_the_others(
    opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory goes once the pass is over."""
    _, _, elastic = opened("llama")
    alone, beside, cancelled = elastic.open(), elastic.open(), elastic.open()
    for cache in (alone, beside, cancelled):
        elastic.prefill(TOKENS[:5], cache)
    canceller = threading.Thread(target=cancelled.close)

    halves = elastic._body.halves
    real = halves["1.kv"]

    class Cancelling:
        """Stands where a half is, and cancels a request during the pass."""

        units = real.units

        def __call__(self, states: Tensor, step: Any) -> Tensor:
            canceller.start()
            canceller.join(0.05)
            assert not cancelled.closed
            after: Tensor = real(states, step)
            return after

    monkeypatch.setitem(halves, "1.kv", Cancelling())
    rows = elastic.decode([7, 7], [beside, cancelled])
    canceller.join()
    monkeypatch.undo()
    assert (cancelled.closed, cancelled.bytes, len(elastic.caches)) == (True, 0, 2)
    torch.testing.assert_close(rows[0], elastic.decode([7], [alone])[0], atol=2e-5, rtol=0)


def test_mistakes_are_one_line(opened: Callable[..., Any], tmp_path: Path) -> None:
    model, ladder, elastic = opened("llama")
    for level in (-1, 8):
        with pytest.raises(LadderError, match="levels 0"):
            elastic.set_level(level)
        with pytest.raises(LadderError, match="levels 0"):
            open_elastic(model, ladder, tmp_path / "other.safetensors", level=level)
    assert not (tmp_path / "other.safetensors").exists()
    cache = elastic.open(20)
    with pytest.raises(UsageError, match="at least one token"):
        elastic.prefill([], cache)
    with pytest.raises(UsageError, match="do not fit in a request of at most"):
        elastic.prefill(TOKENS * 10, cache)
    for token in (-1, 384):
        with pytest.raises(UsageError, match="none of the 384"):
            elastic.prefill([1, token], cache)
    assert cache.tokens == 0
    cache.close()
    with pytest.raises(UsageError, match="closed"):
        elastic.decode([1], [cache])
