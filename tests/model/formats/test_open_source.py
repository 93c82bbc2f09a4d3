"""What a reference may name: a folder, a file, a hub id or a built-in model."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import Maker

from secateur.model.formats.open_source import open_source
from secateur.model.graph_builder import read_graph
from secateur_runtime.errors import SourceError, UnsupportedModelError


def test_a_folder_wins_over_a_hub_id(tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "name").symlink_to(tiny("llama"))
    monkeypatch.chdir(tmp_path)
    assert open_source("org/name").config["model_type"] == "llama"


@pytest.mark.parametrize(
    "ref", ["nowhere", "./nowhere/model", "/nowhere/model", "org/model.gguf", "a/b/c", ""]
)
def test_nothing_there(ref: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=r"does not exist|no config\.json") as caught:
        open_source(ref)
    assert "\n" not in str(caught.value)


def test_one_file_of_a_folder(tiny: Maker) -> None:
    with pytest.raises(SourceError, match="give the folder that holds it"):
        open_source(str(tiny("llama") / "model.safetensors"))
    with pytest.raises(SourceError, match=r"neither a model folder nor a .gguf file"):
        open_source(str(tiny("llama") / "config.json"))


def test_a_real_trained_model(shared: Path) -> None:
    graph = read_graph(open_source(str(shared / "models" / "stories260K" / "hf")))
    assert graph.parameters == 260_032


def test_an_unknown_family_opens_and_is_refused_by_the_graph(tiny: Maker, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "rwkv"}')
    (tmp_path / "model.safetensors").symlink_to(tiny("llama") / "model.safetensors")
    with pytest.raises(UnsupportedModelError, match="model_type 'rwkv' is not a known family; known: gemma2"):
        read_graph(open_source(str(tmp_path)))
