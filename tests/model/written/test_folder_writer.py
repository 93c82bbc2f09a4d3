"""Everything in a folder that is not weights, written by one writer for four verbs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.conftest import Maker
from transformers import AutoTokenizer

from secateur.core.folder_files import MANIFEST
from secateur.core.plan import Plan
from secateur.model.handle import open_model
from secateur.model.tokenizer_pruning import vocabulary
from secateur.model.written.checkpoint import Checkpoint, file_digest
from secateur.model.written.folder_writer import FolderWriter


@pytest.fixture
def writer(tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderWriter:
    """A folder of one shard, made from a model in the home directory that has a card and a plan."""
    shutil.copytree(tiny("llama"), tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("# Earlier\n")
    (tmp_path / "model" / "plan.json").write_text('{"as": "it is"}')
    monkeypatch.setenv("HOME", str(tmp_path))
    model = open_model("~/model")
    checkpoint = Checkpoint(tmp_path / "out", 1)
    checkpoint.partial.mkdir()
    tensors = {name: model.source.read(name).half() for name in model.graph.tensors}
    checkpoint.write(0, tensors)
    made = FolderWriter(checkpoint, model, torch.float16)
    made.enter(0, tensors)
    return made


def _json(writer: FolderWriter, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((writer.folder / name).read_text())
    return found


def test_the_folder_opens_and_says_how_it_was_made(writer: FolderWriter) -> None:
    config = writer.model.source.config
    writer.describe(config, {"type": "half"})
    made = open_model(str(writer.folder))
    assert made.source.config == {**config, "dtype": "float16"}
    assert made.graph.tensors.keys() == writer.model.graph.tensors.keys()
    assert AutoTokenizer.from_pretrained(writer.folder)("branches").input_ids
    (shard,) = writer.folder.glob("*.safetensors")
    assert _json(writer, MANIFEST) | {"secateur": ""} == {
        "type": "half",
        "source": writer.model.digest,
        "shards": {shard.name: file_digest(shard)},
        "secateur": "",
    }
    index = _json(writer, "model.safetensors.index.json")
    assert index["metadata"] == {"total_size": 2 * sum(one.numel for one in made.graph.tensors.values())}
    assert writer.weight_bytes() == shard.stat().st_size
    assert not (writer.folder / "plan.json").exists()


def test_a_plan_is_written_or_carried_as_it_is(writer: FolderWriter) -> None:
    plan = Plan(model=writer.model.digest)
    writer.describe(writer.model.source.config, {}, plan=plan)
    assert (writer.folder / "plan.json").read_text() == plan.to_json()
    writer.carry_plan()
    assert (writer.folder / "plan.json").read_text() == '{"as": "it is"}'


def test_a_modelling_file_goes_with_blocks_of_unequal_width(writer: FolderWriter) -> None:
    writer.describe(writer.model.source.config, {})
    assert writer.stock
    assert not list(writer.folder.glob("*.py"))
    writer.describe({**writer.model.source.config, "auto_map": {}}, {})
    assert not writer.stock
    (module,) = writer.folder.glob("*.py")
    compile(module.read_text(), module.name, "exec")


def test_a_pruned_vocabulary_narrows_the_tokenizer(writer: FolderWriter) -> None:
    tokenizer = writer.model.source.tokenizer()
    kept = sorted({*vocabulary(tokenizer, writer.model.source.config).fixed, *range(290)})
    writer.describe(writer.model.source.config, {}, tokens=kept)
    assert len(AutoTokenizer.from_pretrained(writer.folder)) == len(kept) < len(tokenizer)


def test_cards(writer: FolderWriter) -> None:
    assert writer.earlier_card() == "# Earlier\n"
    writer.write_card("# Later\n")
    assert (writer.folder / "README.md").read_text() == "# Later\n"
