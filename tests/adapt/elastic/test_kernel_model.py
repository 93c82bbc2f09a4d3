"""Opening a model in the kernels: types, and what cannot be opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.ladders import ladder_for

from secateur.adapt.elastic.kernel_model import open_kernels
from secateur.model.handle import ModelHandle, open_model
from secateur.runtime.elastic.model import Elastic
from secateur_runtime.errors import LadderError, UnsupportedModelError, UsageError
from secateur_runtime.ladder import Ladder

Maker = Callable[..., Path]
Opened = tuple[ModelHandle, Ladder, Elastic]
TOKENS = list(range(5, 95))


@pytest.fixture
def opened(tiny: Maker, tmp_path: Path) -> Opened:
    """A tiny Llama as an elastic model in the kernels, its model and its ladder."""
    model = open_model(str(tiny("llama")))
    ladder = ladder_for(model.graph, model.digest, ("1.ffn:64", "1.kv:1", "1.attn"))
    return model, ladder, open_kernels(model, ladder, tmp_path / "weights.safetensors", kind="f32")


def test_keys_in_float16(opened: Opened, tmp_path: Path) -> None:
    model, ladder, elastic = opened
    narrow = open_kernels(model, ladder, tmp_path / "weights.safetensors", kind="f32", kv=torch.float16)
    with elastic.open() as wide, narrow.open() as cache:
        assert abs(elastic.prefill(TOKENS, wide) - narrow.prefill(TOKENS, cache)).max() < 2e-2
        assert cache.bytes < wide.bytes


def test_what_cannot_be_opened(opened: Opened, tiny: Maker, tmp_path: Path) -> None:
    model, ladder, _ = opened
    with pytest.raises(UsageError, match=r"--type int9 .*did you mean int8"):
        open_kernels(model, ladder, tmp_path / "other", kind="int9")
    with pytest.raises(LadderError, match="no level 8"):
        open_kernels(model, ladder, tmp_path / "other", level=8)
    with pytest.raises(LadderError, match="was made for"):
        open_kernels(open_model(str(tiny("qwen2"))), ladder, tmp_path / "other")
    gemma = open_model(str(tiny("gemma2")))
    with pytest.raises(UnsupportedModelError, match="is gemma2"):
        open_kernels(gemma, ladder_for(gemma.graph, gemma.digest, ("1.attn",)), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_without_kernels(opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from secateur_runtime.kernels.build import BuildError
    from secateur_runtime.kernels.library import kernels

    model, ladder, _ = opened

    def none() -> None:
        raise BuildError("no C compiler (cc, gcc or clang)")

    kernels.cache_clear()
    monkeypatch.setattr("secateur_runtime.kernels.library._load", none)
    with pytest.raises(
        UsageError,
        match=r"no kernels here \(no C compiler \(cc, gcc or clang\)\): --backend elastic needs none",
    ):
        open_kernels(model, ladder, tmp_path / "other")
    monkeypatch.undo()
    kernels.cache_clear()
