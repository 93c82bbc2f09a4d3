"""Rotary settings of GGUF files become the settings of transformers."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
import torch
from tests.conftest import Maker
from tests.model.formats.gguf.gguf_variants import build, logits, rewrite

from secateur.model.formats.gguf.rope import llama3_factors
from secateur.model.formats.open_source import open_source
from secateur.model.graph_builder import read_graph
from secateur_runtime.errors import UnsupportedModelError

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_theta": 5e5,
}


def test_llama3_scaling_is_recovered_from_its_factors(tiny: Maker, tmp_path: Path) -> None:
    from transformers import AutoConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    folder = tiny("llama", rope_parameters=LLAMA3, head_dim=32)
    config = AutoConfig.from_pretrained(folder)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1 / 5e5 ** (torch.arange(0, 32, 2) / 32)
    torch.testing.assert_close(torch.tensor(llama3_factors(5e5, 32, 8.0)), plain / scaled, rtol=1e-5, atol=0)
    factors = {"rope_freqs.weight": llama3_factors(5e5, 32, 8.0)}
    path = rewrite(folder, tmp_path / "a.gguf", lambda writer: None, factors)
    assert open_source(str(path)).config["rope_parameters"] == LLAMA3
    read_graph(open_source(str(path)))
    odd = rewrite(folder, tmp_path / "b.gguf", lambda writer: None, {"rope_freqs.weight": [1.0] * 15 + [3.0]})
    with pytest.raises(UnsupportedModelError, match=r"rope_freqs.weight is not the scaling of Llama 3.1"):
        open_source(str(odd))
    none = rewrite(folder, tmp_path / "c.gguf", lambda writer: None, {"rope_freqs.weight": [1.0] * 16})
    assert open_source(str(none)).config["rope_parameters"]["rope_type"] == "default"


def test_other_scalings_of_the_kind_of_llama3_are_those_of_transformers(tiny: Maker) -> None:
    from transformers import AutoConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = {**LLAMA3, "low_freq_factor": 2.0, "high_freq_factor": 8.0, "factor": 16.0}
    scaling |= {"original_max_position_embeddings": 1024, "rope_theta": 1e5}
    config = AutoConfig.from_pretrained(tiny("llama", rope_parameters=scaling, head_dim=32))
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1 / 1e5 ** (torch.arange(0, 32, 2) / 32)
    found = torch.tensor(llama3_factors(1e5, 32, 16.0, scaling))
    assert len(set(found.tolist())) > 3
    torch.testing.assert_close(found, plain / scaled, rtol=1e-5, atol=0)


def test_phi3_long_context(tiny: Maker, tmp_path: Path) -> None:
    rope = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "partial_rotary_factor": 1.0,
        "long_factor": [2.0] * 8,
        "short_factor": [1.5] * 8,
    }
    folder = tiny("phi3", rope_parameters=rope, original_max_position_embeddings=16)
    tensors = {"rope_factors_long.weight": [2.0] * 8, "rope_factors_short.weight": [1.5] * 8}
    path = rewrite(
        folder, tmp_path / "a.gguf", lambda writer: writer.add_rope_scaling_orig_ctx_len(16), tensors
    )
    torch.testing.assert_close(
        logits(build(open_source(str(path)))), logits(build(open_source(str(folder)))), rtol=0, atol=1e-5
    )


def test_linear_and_yarn_scaling(tiny: Maker, tmp_path: Path) -> None:
    def linear(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(8.0)

    def yarn(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(64)

    rope = open_source(str(rewrite(tiny("gemma3_text"), tmp_path / "a.gguf", linear))).config[
        "rope_parameters"
    ]
    assert rope["full_attention"] == {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}
    assert rope["sliding_attention"] == {"rope_type": "default", "rope_theta": 1e4}
    rope = open_source(str(rewrite(tiny("qwen2"), tmp_path / "b.gguf", yarn))).config["rope_parameters"]
    assert rope == {
        "rope_type": "yarn",
        "rope_theta": 1e6,
        "factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    with pytest.raises(UnsupportedModelError, match="rotary scaling is 'dynamic'"):
        open_source(
            str(
                rewrite(
                    tiny("qwen2"),
                    tmp_path / "c.gguf",
                    lambda writer: writer.add_string("qwen2.rope.scaling.type", "dynamic"),
                )
            )
        )
