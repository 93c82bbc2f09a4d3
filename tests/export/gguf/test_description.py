"""A model in GGUF terms: its architecture, its names, and families that have none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gguf
import pytest
from tests.conftest import Maker
from tests.tiny_gguf import arch_of
from tests.tiny_models import FAMILIES as TINY

from secateur.core.progress import Silent
from secateur.export.gguf.description import describe, naming_of, whole_settings
from secateur.export.gguf.layout import lay_out
from secateur.model.families import FAMILIES
from secateur.model.formats.gguf.header import read_header
from secateur.model.handle import open_model
from secateur.pipeline.export.gguf import export
from secateur_runtime.errors import UnsupportedModelError


@pytest.mark.parametrize("family", TINY)
def test_names_are_those_of_llama_cpps_converter(tiny: Maker, family: str) -> None:
    """Gguf's own map of names is the reference."""
    model = open_model(str(tiny(family)))
    naming = naming_of(model)
    assert naming.loader.name == gguf.MODEL_ARCH_NAMES[arch_of(family)]
    names = gguf.get_tensor_name_map(arch_of(family), len(model.graph.blocks))
    for stored, module in naming.inside.items():
        assert names.get_name(f"model.layers.1.{module}") == f"blk.1.{stored}"
    for stored, name in naming.outside.items():
        if name in model.graph.tensors:
            assert names.get_name(name, try_suffixes=(".weight",)) == stored


@pytest.mark.parametrize("verify", [False, True])
def test_a_family_without_an_architecture_is_refused(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verify: bool
) -> None:
    """It is not written as a Llama, and nothing is left on disk."""
    pytest.importorskip("xllamacpp", reason="pip install 'secateur[llamacpp]'")
    stranger = replace(FAMILIES["llama"], name="stranger", gguf=None)
    monkeypatch.setattr("secateur.model.handle.family_of", lambda config: stranger)
    message = (
        "^not supported because GGUF has no known architecture for stranger; known: gemma2, gemma3_text,"
    )
    with pytest.raises(UnsupportedModelError, match=message):
        export(str(tiny("llama")), tmp_path / "a.gguf", verify=verify)
    assert list(tmp_path.iterdir()) == []


def test_every_family_that_can_be_opened_has_an_architecture(tiny: Maker) -> None:
    for family in FAMILIES:
        loader = naming_of(open_model(str(tiny(family)))).loader
        assert loader.name in gguf.MODEL_ARCH_NAMES.values()


def test_settings_are_whole(tiny: Maker) -> None:
    """What the config does not say is what its class fills in."""
    model = open_model(str(tiny("gemma2")))
    assert model.source.config.get("hidden_activation") == whole_settings(model)["hidden_activation"]
    assert whole_settings(model)["attn_logit_softcapping"] == 50.0


def test_the_words_of_a_gguf_file_are_copied(tiny_gguf: Maker, tmp_path: Path) -> None:
    path = tiny_gguf("llama")
    model = open_model(str(path))
    describe(model, lay_out(model.graph, naming_of(model)), "f32").write(tmp_path / "a.gguf", Silent())
    before = read_header(path)
    after = read_header(tmp_path / "a.gguf")
    copied = [key for key in before.spans if key.startswith(("tokenizer.", "general.name"))]
    assert len(copied) > 8
    assert {key: after.get(key) for key in copied} == {key: before.get(key) for key in copied}
