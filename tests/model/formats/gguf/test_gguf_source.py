from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.numpy import load_file
from tests import tiny_gguf as converter
from tests.conftest import Maker
from torch import Tensor, nn

from secateur.model.families import FAMILIES
from secateur.model.formats.gguf.config import ARCHS
from secateur.model.formats.gguf.names import block_names
from secateur.model.formats.gguf.rope import llama3_factors
from secateur.model.formats.open_source import open_source
from secateur.model.graph_builder import read_graph
from secateur.tensors.source import Source
from secateur_runtime.errors import SourceError, UnsupportedModelError

# Mistral is not told apart from Llama in a GGUF file; the two differ in the attention window only.
SAME_NAME = sorted(set(FAMILIES) - {"mistral"})
KNOWN_TO_TRANSFORMERS = ["llama", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3"]
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_theta": 5e5,
}


def build(source: Source) -> nn.Module:
    """Build the model that a source describes, from its config and its tensors alone."""
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**source.config))
    missing, unexpected = model.load_state_dict(
        {name: source.read(name) for name in source.tensors}, strict=False
    )
    assert not unexpected
    assert missing == (["lm_head.weight"] if source.config["tie_word_embeddings"] else [])
    whole = model.float().eval()
    assert isinstance(whole, nn.Module)
    return whole


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    tokens = torch.arange(40).reshape(1, 40)
    out = model(tokens).logits
    assert isinstance(out, Tensor)
    return out


@pytest.mark.parametrize("family", FAMILIES)
def test_a_converted_model_is_the_model(tiny: Maker, tiny_gguf: Maker, family: str) -> None:
    """Tensors, and logits past the attention window, which shows that the config is whole."""
    config = {"sliding_window": None} if family == "mistral" else {}
    source, original = open_source(str(tiny_gguf(family, **config))), open_source(str(tiny(family, **config)))
    assert set(source.tensors) == set(original.tensors)
    for name in source.tensors:
        torch.testing.assert_close(source.read(name), original.read(name), rtol=0, atol=3e-7)
    torch.testing.assert_close(logits(build(source)), logits(build(original)), rtol=0, atol=2e-5)


@pytest.mark.parametrize("family", SAME_NAME)
def test_the_config_says_what_the_original_says(tiny: Maker, tiny_gguf: Maker, family: str) -> None:
    from transformers import AutoConfig

    made = AutoConfig.for_model(**open_source(str(tiny_gguf(family))).config).to_dict()
    original = AutoConfig.from_pretrained(tiny(family)).to_dict()
    # Not said by the original where it is what the class would compute.
    derived = {"_name_or_path", "head_dim", "transformers_version"}
    assert {
        key: value for key, value in made.items() if key not in derived and value != original.get(key)
    } == {}
    assert {key for key in original if key not in made} <= derived


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


@pytest.mark.parametrize("name", ARCHS)
def test_names_are_those_of_llama_cpp(name: str) -> None:
    arch = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == name)
    table = gguf.get_tensor_name_map(arch, 1)
    for stored, module in block_names(FAMILIES[ARCHS[name].family]).items():
        assert table.get_name(f"model.layers.0.{module}") == f"blk.0.{stored}"


@pytest.mark.parametrize("family", ["llama", "smollm3"])
def test_biases_are_reordered_with_their_rows(tiny: Maker, tiny_gguf: Maker, family: str) -> None:
    config = {"attention_bias": True, "mlp_bias": True}
    source, original = open_source(str(tiny_gguf(family, **config))), open_source(str(tiny(family, **config)))
    assert source.config["attention_bias"] is True
    assert source.config["mlp_bias"] is True
    assert all(torch.equal(source.read(name), original.read(name)) for name in original.tensors)
    read_graph(source)


def rewrite(
    folder: Path,
    path: Path,
    add: Any,
    tensors: dict[str, list[float]] | None = None,
    skip: tuple[str, ...] = (),
) -> Path:
    """Convert `folder` again with what `add(writer)` writes more, and with more `tensors`."""
    import numpy as np

    config = json.loads((folder / "config.json").read_text())
    arch = converter.ARCHS[config["model_type"]]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    converter.add_settings(writer, config)
    add(writer)
    for name, array in converter.converted(load_file(folder / "model.safetensors"), config, arch):
        if name not in skip:
            writer.add_tensor(name, array)
    for name, values in (tensors or {}).items():
        writer.add_tensor(name, np.array(values, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


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


def test_a_window_pattern_in_the_file_wins(tiny: Maker, tmp_path: Path) -> None:
    path = rewrite(
        tiny("gemma3_text"),
        tmp_path / "a.gguf",
        lambda writer: writer.add_sliding_window_pattern([True, False] * 3),
    )
    assert open_source(str(path)).config["layer_types"] == ["sliding_attention", "full_attention"] * 3
    path = rewrite(
        tiny("gemma3_text"), tmp_path / "b.gguf", lambda writer: writer.add_sliding_window_pattern([True])
    )
    with pytest.raises(SourceError, match="does not list 6 blocks"):
        open_source(str(path))


@pytest.mark.parametrize(
    ("family", "key", "value", "error", "message"),
    [
        ("llama", "llama.expert_count", 8, UnsupportedModelError, "mixture of experts"),
        ("llama", "split.count", 3, SourceError, "one part of a split model"),
    ],
)
def test_models_that_are_not_handled(
    tiny: Maker, tmp_path: Path, family: str, key: str, value: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        open_source(
            str(rewrite(tiny(family), tmp_path / "a.gguf", lambda writer: writer.add_uint32(key, value)))
        )


def test_an_unknown_architecture(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "rwkv6")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(
        UnsupportedModelError, match="GGUF architecture 'rwkv6' is not a known one; known: gemma2"
    ):
        open_source(str(tmp_path / "a.gguf"))


def test_unknown_and_missing_tensors(tiny: Maker, tmp_path: Path) -> None:
    path = rewrite(tiny("qwen2"), tmp_path / "a.gguf", lambda writer: None, {"blk.0.ssm_a": [1.0]})
    with pytest.raises(
        UnsupportedModelError, match=r"these GGUF tensors are not those of a qwen2 model: blk.0.ssm_a"
    ):
        open_source(str(path))
    path = rewrite(tiny("qwen2"), tmp_path / "b.gguf", lambda writer: None, skip=("blk.1.ffn_up.weight",))
    with pytest.raises(UnsupportedModelError, match=r"missing model.layers.1.mlp.up_proj.weight"):
        read_graph(open_source(str(path)))


def test_widths_that_differ_between_blocks(tiny: Maker, tmp_path: Path) -> None:
    def change(writer: gguf.GGUFWriter) -> None:
        del writer.kv_data[0]["qwen2.feed_forward_length"]
        writer.add_feed_forward_length([96, 64, 96])

    with pytest.raises(UnsupportedModelError, match=r"'qwen2.feed_forward_length' differs between blocks"):
        open_source(str(rewrite(tiny("qwen2"), tmp_path / "a.gguf", change)))


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
