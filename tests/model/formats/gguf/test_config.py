"""The config made from GGUF metadata says what the original config says."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
from tests.conftest import Maker
from tests.model.formats.gguf.gguf_variants import rewrite

from secateur.model.families import FAMILIES
from secateur.model.formats.open_source import open_source
from secateur_runtime.errors import SourceError, UnsupportedModelError

# Mistral is not told apart from Llama in a GGUF file; the two differ in the attention window only.
SAME_NAME = sorted(set(FAMILIES) - {"mistral"})


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


def test_a_soft_cap_that_a_loader_takes_from_the_file_is_read(tiny: Maker, tmp_path: Path) -> None:
    folder = tiny("gemma3_text")
    plain = rewrite(folder, tmp_path / "a.gguf", lambda writer: None)
    assert "final_logit_softcapping" not in open_source(str(plain)).config
    capped = rewrite(folder, tmp_path / "b.gguf", lambda writer: writer.add_final_logit_softcapping(20.0))
    assert open_source(str(capped)).config["final_logit_softcapping"] == 20.0


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


def test_widths_that_differ_between_blocks(tiny: Maker, tmp_path: Path) -> None:
    def change(writer: gguf.GGUFWriter) -> None:
        del writer.kv_data[0]["qwen2.feed_forward_length"]
        writer.add_feed_forward_length([96, 64, 96])

    with pytest.raises(UnsupportedModelError, match=r"'qwen2.feed_forward_length' differs between blocks"):
        open_source(str(rewrite(tiny("qwen2"), tmp_path / "a.gguf", change)))
