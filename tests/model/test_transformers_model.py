"""transformers' own models from a config dict, with and without weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import Maker
from tests.tiny_models import FAMILIES
from tests.uneven import save_uneven, widths

from secateur.model.transformers_model import build_model, build_without_weights, transformers_config
from secateur_runtime.errors import UnsupportedModelError


def read_config(folder: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return body


@pytest.mark.parametrize("family", FAMILIES)
def test_the_config_is_that_of_transformers(tiny: Maker, family: str) -> None:
    from transformers import AutoConfig

    found = transformers_config(read_config(tiny(family)))
    expected = AutoConfig.from_pretrained(tiny(family))
    assert type(found) is type(expected)
    # What a loaded config adds is where it came from and, for some, the width of a head.
    ignored = {"_name_or_path", "head_dim", "transformers_version", "architectures"}
    assert {k: v for k, v in found.to_dict().items() if k not in ignored} == {
        k: v for k, v in expected.to_dict().items() if k not in ignored
    }
    assert found.head_dim == (expected.to_dict().get("head_dim") or 64 // 4)


def test_a_width_that_the_class_would_refuse_is_taken(tiny: Maker) -> None:
    """62 channels are no multiple of 4 heads."""
    config = {**read_config(tiny("llama")), "hidden_size": 62, "head_dim": 16}
    assert transformers_config(config).hidden_size == 62
    model = build_model(config)
    assert model.model.layers[0].self_attn.q_proj.weight.shape == (64, 62)
    assert model.model.embed_tokens.weight.shape[1] == 62


def test_unequal_blocks_get_their_widths(tiny: Maker, tmp_path: Path) -> None:
    folder = save_uneven(tiny("llama"), tmp_path / "model", widths([(4, 2, 64), (0, 0, 32), (2, 1, 0)]))
    layers = build_without_weights(read_config(folder)).model.layers
    assert [layer.mlp.down_proj.weight.shape[1] for layer in layers[:2]] == [64, 32]
    assert layers[2].self_attn.q_proj.weight.shape[0] == 32
    assert not list(layers[1].self_attn.parameters())


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_without_weights_only_the_position_tables_are_there(tiny: Maker, family: str) -> None:
    config = read_config(tiny(family))
    empty, whole = build_without_weights(config), build_model(config)
    assert all(parameter.is_meta for parameter in empty.parameters())
    assert not empty.training
    expected = dict(whole.named_buffers())
    buffers = dict(empty.named_buffers())
    assert buffers.keys() == expected.keys()
    assert buffers
    for name, buffer in buffers.items():
        assert torch.equal(buffer, expected[name]), name


def test_another_family_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="did you mean llama"):
        transformers_config({"model_type": "lama"})
