"""An opened model: looked up once, and known to transformers where its blocks are unequal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.conftest import Maker
from tests.uneven import save_uneven, widths

from secateur.model.graph_builder import read_graph
from secateur.model.handle import open_model, open_registered
from secateur_runtime.errors import SourceError, UnsupportedModelError


def test_a_handle_holds_the_source_and_its_graph(tiny: Maker) -> None:
    model = open_model(str(tiny("qwen2")))
    assert model.graph == read_graph(model.source)
    assert model.digest == model.source.digest()
    assert model.config.model_type == "qwen2"
    assert model.config.hidden_act == "silu"
    assert len(model.stream()) == len(model.graph.blocks)


def test_the_digest_is_computed_once(tiny: Maker, tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    for file in tiny("llama").iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    model = open_model(str(path))
    digest = model.digest
    (path / "model.safetensors").unlink()
    assert model.digest == digest


def test_weights_outside_the_blocks_are_rounded_as_asked(tiny: Maker) -> None:
    stream = open_model(str(tiny("llama"))).stream(torch.bfloat16)
    (states,) = stream.embed([torch.tensor([[1, 2, 3]])])
    assert torch.equal(states, states.bfloat16().float())
    (exact,) = open_model(str(tiny("llama"))).stream().embed([torch.tensor([[1, 2, 3]])])
    assert not torch.equal(states, exact)


def test_a_kept_config_says_what_the_class_says(tiny: Maker, tmp_path: Path) -> None:
    model = open_model(str(tiny("llama")))
    kept = replace(model, kept_in=tmp_path)
    assert kept.config.rms_norm_eps == model.config.rms_norm_eps
    assert kept.config.rope_parameters == model.config.rope_parameters


def test_unequal_blocks_are_registered_when_they_are_opened(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import CONFIG_MAPPING

    monkeypatch.delitem(CONFIG_MAPPING._extra_content, "secateur_llama", raising=False)
    open_registered(str(tiny("llama")))
    assert "secateur_llama" not in CONFIG_MAPPING
    folder = save_uneven(tiny("llama"), tmp_path / "model", widths([(4, 2, 64), (2, 1, 32)]))
    open_registered(str(folder))
    assert CONFIG_MAPPING["secateur_llama"].__name__ == "SecateurConfig"


def test_what_is_no_model_is_one_line(tiny: Maker, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "rwkv"}')
    (tmp_path / "model.safetensors").symlink_to(tiny("llama") / "model.safetensors")
    for opener in (open_model, open_registered):
        with pytest.raises(SourceError, match="does not exist"):
            opener("nowhere")
        with pytest.raises(UnsupportedModelError, match="'rwkv' is not a known family"):
            opener(str(tmp_path))
