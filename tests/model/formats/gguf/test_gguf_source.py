"""A GGUF file reads as the model that it was converted from."""

from __future__ import annotations

import hashlib
from pathlib import Path

import gguf
import pytest
import torch
from tests.conftest import Maker
from tests.model.formats.gguf.gguf_variants import build, logits

from secateur.model.families import FAMILIES
from secateur.model.formats.open_source import open_source
from secateur.model.graph_builder import read_graph

KNOWN_TO_TRANSFORMERS = ["llama", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_converted_model_is_the_model(tiny: Maker, tiny_gguf: Maker, family: str) -> None:
    """Tensors, and logits past the attention window, which shows that the config is whole."""
    config = {"sliding_window": None} if family == "mistral" else {}
    source, original = open_source(str(tiny_gguf(family, **config))), open_source(str(tiny(family, **config)))
    assert set(source.tensors) == set(original.tensors)
    for name in source.tensors:
        torch.testing.assert_close(source.read(name), original.read(name), rtol=0, atol=3e-7)
    torch.testing.assert_close(logits(build(source)), logits(build(original)), rtol=0, atol=2e-5)


@pytest.mark.parametrize("family", KNOWN_TO_TRANSFORMERS)
def test_tensors_are_those_of_transformers_own_loader(tiny_gguf: Maker, family: str) -> None:
    from transformers import AutoModelForCausalLM

    # transformers takes 128 for the head width of every Qwen3 file, whatever the file says.
    path = tiny_gguf(family, **({"head_dim": 128} if family == "qwen3" else {}))
    state = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name).state_dict()
    source = open_source(str(path))
    assert set(state) - {"lm_head.weight"} == set(source.tensors) - {"lm_head.weight"}
    assert all(torch.equal(source.read(name), state[name]) for name in source.tensors)


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_stored_types(tiny_gguf: Maker, kind: str) -> None:
    """Floats keep their type; quantized tensors come back as gguf itself unpacks them."""
    source = open_source(str(tiny_gguf("qwen2", kind=kind, hidden_size=128)))
    name = "model.layers.2.mlp.down_proj.weight"
    weight = source.read(name)
    assert source.tensors[name].dtype == kind
    assert source.tensors["model.norm.weight"].dtype == "F32"
    assert weight.dtype == {"F16": torch.float16, "BF16": torch.bfloat16}.get(kind, torch.float32)
    assert source.config["dtype"] == {"F16": "float16", "BF16": "bfloat16"}.get(kind, "float32")
    reader = {
        tensor.name: tensor
        for tensor in gguf.GGUFReader(str(tiny_gguf("qwen2", kind=kind, hidden_size=128))).tensors
    }
    stored = reader["blk.2.ffn_down.weight"]
    expected = gguf.quants.dequantize(stored.data, stored.tensor_type)
    assert torch.equal(weight.float(), torch.from_numpy(expected.copy()).float())


@pytest.mark.parametrize(
    ("family", "kind"), [("llama", "F16"), ("gemma2", "BF16"), ("qwen2", "Q4_1"), ("llama", "Q8_0")]
)
def test_pieces_are_the_tensor(
    tiny_gguf: Maker, monkeypatch: pytest.MonkeyPatch, family: str, kind: str
) -> None:
    """Also where a converter added to the norms, or interleaved the rows of a tensor."""
    monkeypatch.setattr("secateur.model.formats.raw_reads._PIECE_ELEMENTS", 1000)
    source = open_source(str(tiny_gguf(family, kind=kind, hidden_size=128)))
    for name in source.tensors:
        assert torch.equal(torch.cat(list(source.pieces(name))), source.read(name)), name
    assert len(list(source.pieces("model.embed_tokens.weight"))) > 10


def test_a_tensor_longer_than_a_slab(tiny: Maker, tiny_gguf: Maker) -> None:
    config = {"hidden_size": 256, "intermediate_size": 512}
    source, original = (
        open_source(str(tiny_gguf("qwen2", kind="Q8_0", **config))),
        open_source(str(tiny("qwen2", **config))),
    )
    name = "model.layers.0.mlp.up_proj.weight"
    torch.testing.assert_close(source.read(name), original.read(name), rtol=0, atol=2e-3)


def test_digest(tiny_gguf: Maker) -> None:
    path = tiny_gguf("llama")
    assert open_source(str(path)).digest() == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("family", ["llama", "smollm3"])
def test_biases_are_reordered_with_their_rows(tiny: Maker, tiny_gguf: Maker, family: str) -> None:
    config = {"attention_bias": True, "mlp_bias": True}
    source, original = open_source(str(tiny_gguf(family, **config))), open_source(str(tiny(family, **config)))
    assert source.config["attention_bias"] is True
    assert source.config["mlp_bias"] is True
    assert all(torch.equal(source.read(name), original.read(name)) for name in original.tensors)
    read_graph(source)


@pytest.mark.slow
def test_smollm2_is_what_transformers_reads(smollm2: str) -> None:
    from transformers import AutoModelForCausalLM

    source = open_source(smollm2)
    assert source.config["rms_norm_eps"] == 1e-5
    path = Path(source.path)  # type: ignore[attr-defined]
    reference = AutoModelForCausalLM.from_pretrained(
        str(path.parent), gguf_file=path.name, dtype=torch.float32
    )
    state = reference.state_dict()
    assert all(torch.equal(source.read(name), state[name]) for name in source.tensors)
    torch.testing.assert_close(logits(build(source)), logits(reference.eval()), rtol=0, atol=1e-4)
