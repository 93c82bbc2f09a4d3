"""A folder of safetensors files reads as transformers reads it, and damage is one line."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.conftest import Maker
from tests.tiny_models import FAMILIES, TEXT

from secateur.model.formats.open_source import open_source
from secateur_runtime.errors import SourceError


@pytest.fixture
def folder(tiny: Maker, tmp_path: Path) -> Path:
    """A llama folder that a test may damage."""
    return Path(shutil.copytree(tiny("llama"), tmp_path / "model"))


@pytest.fixture
def sharded(tiny: Maker, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny("llama", shard_size="200KB"), tmp_path / "sharded"))


@pytest.mark.parametrize("family", FAMILIES)
def test_reads_what_transformers_reads(tiny: Maker, family: str) -> None:
    from transformers import AutoModelForCausalLM

    source = open_source(str(tiny(family)))
    state = AutoModelForCausalLM.from_pretrained(tiny(family)).state_dict()
    if source.config["tie_word_embeddings"]:
        del state["lm_head.weight"]
    assert set(source.tensors) == set(state)
    assert all(torch.equal(source.read(name), state[name]) for name in state)
    assert all(source.tensors[name].shape == tuple(state[name].shape) for name in state)


@pytest.mark.parametrize(("dtype", "stored"), [("bfloat16", "BF16"), ("float16", "F16"), ("float32", "F32")])
def test_keeps_the_stored_type(tiny: Maker, dtype: str, stored: str) -> None:
    source = open_source(str(tiny("qwen2", dtype=dtype)))
    name = "model.layers.0.self_attn.q_proj.bias"
    assert source.tensors[name].dtype == stored
    assert source.read(name).dtype == getattr(torch, dtype)


def test_the_caller_owns_what_it_reads(folder: Path) -> None:
    source = open_source(str(folder))
    before = source.digest()
    source.read("model.norm.weight").zero_()
    assert source.read("model.norm.weight").abs().sum() > 0
    assert open_source(str(folder)).digest() == before


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_pieces_are_the_tensor(tiny: Maker, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    monkeypatch.setattr("secateur.model.formats.raw_reads._PIECE_ELEMENTS", 1000)
    source = open_source(str(tiny("qwen2", dtype=dtype)))
    for name in source.tensors:
        pieces = list(source.pieces(name))
        assert torch.equal(torch.cat(pieces), source.read(name)), name
        assert all(piece.numel() <= 1000 for piece in pieces)


def test_shards_hold_what_one_file_holds(folder: Path, sharded: Path) -> None:
    one, many = open_source(str(folder)), open_source(str(sharded))
    assert len(list(sharded.glob("*.safetensors"))) > 1
    assert set(one.tensors) == set(many.tensors)
    assert all(torch.equal(one.read(name), many.read(name)) for name in one.tensors)


def test_digest_is_of_the_bytes_in_the_order_of_the_shards(sharded: Path) -> None:
    content = b"".join(path.read_bytes() for path in sorted(sharded.glob("*.safetensors")))
    assert open_source(str(sharded)).digest() == "sha256:" + hashlib.sha256(content).hexdigest()


def test_a_stored_tied_head_is_not_listed(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    assert "lm_head.weight" not in open_source(str(folder)).tensors


def test_companions_make_the_same_tokenizer(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    out = tmp_path / "out"
    out.mkdir()
    source = open_source(str(folder))
    source.copy_companions(out)
    assert AutoTokenizer.from_pretrained(out)(TEXT).input_ids == source.tokenizer()(TEXT).input_ids
    assert {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"} <= {
        path.name for path in out.iterdir()
    }


@pytest.mark.parametrize("kind", ["TokenizersBackend", "LlamaTokenizerFast", "Qwen2Tokenizer", ""])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_the_tokenizer_is_the_one_that_the_class_of_the_config_leads_to(
    family: str, kind: str, tiny: Maker, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    folder = Path(shutil.copytree(tiny(family), tmp_path / "model"))
    named = json.loads((folder / "tokenizer_config.json").read_text())
    named.pop("tokenizer_class")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(named | ({"tokenizer_class": kind} if kind else {}))
    )
    found, theirs = open_source(str(folder)).tokenizer(), AutoTokenizer.from_pretrained(folder)
    assert type(found) is type(theirs)
    assert found(TEXT).input_ids == theirs(TEXT).input_ids
    assert (found.chat_template, found.all_special_ids, found.name_or_path) == (
        theirs.chat_template,
        theirs.all_special_ids,
        theirs.name_or_path,
    )


def test_a_folder_without_tokenizer_opens_and_says_so_when_asked(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer.json").unlink()
    source = open_source(str(folder))
    for ask in (source.tokenizer, lambda: source.copy_companions(tmp_path)):
        with pytest.raises(SourceError, match="has no tokenizer: copy"):
            ask()


def test_a_damaged_tokenizer_is_one_line(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(SourceError, match="cannot be loaded") as caught:
        open_source(str(folder)).tokenizer()
    assert "\n" not in str(caught.value)


def test_a_file_cut_while_it_is_read(folder: Path) -> None:
    source = open_source(str(folder))
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(SourceError, match="bytes early: it changed while it was read"):
        source.read("model.norm.weight")
    path.unlink()
    with pytest.raises(SourceError, match="cannot read"):
        source.read("model.norm.weight")
    with pytest.raises(SourceError, match="cannot read"):
        source.digest()


def test_a_missing_shard(sharded: Path) -> None:
    lost = max(sharded.glob("*.safetensors"))
    lost.unlink()
    with pytest.raises(SourceError, match=rf"lacks 1 of the \d shards its index lists, such as {lost.name}"):
        open_source(str(sharded))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"model.norm.weight": "../../etc/passwd"}}, "no usable weight_map"),
        ({"weight_map": {}}, "no usable weight_map"),
        ({"weight_map": {"a": 1}}, "no usable weight_map"),
        ({}, "no usable weight_map"),
        ([], "not a JSON object"),
    ],
)
def test_a_damaged_index(sharded: Path, index: object, message: str) -> None:
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(SourceError, match=message):
        open_source(str(sharded))


def test_an_index_that_lists_a_tensor_its_shard_lacks(sharded: Path) -> None:
    path = sharded / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.extra.weight"] = next(iter(index["weight_map"].values()))
    path.write_text(json.dumps(index))
    with pytest.raises(
        SourceError, match=r"lists tensors that its shards do not hold, such as model.extra.weight"
    ):
        open_source(str(sharded))


def test_a_tensor_in_two_shards(sharded: Path) -> None:
    first, second = sorted(sharded.glob("*.safetensors"))[:2]
    shutil.copyfile(first, second)
    with pytest.raises(SourceError, match="is both in"):
        open_source(str(sharded))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "has no config.json"),
        ("{", "config.json is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not a JSON object"),
        (b"\xff", "is not JSON"),
    ],
)
def test_config_trouble(folder: Path, config: str | bytes | None, message: str) -> None:
    path = folder / "config.json"
    path.unlink()
    if config is not None:
        path.write_bytes(config.encode() if isinstance(config, str) else config)
    with pytest.raises(SourceError, match=message) as caught:
        open_source(str(folder))
    assert "\n" not in str(caught.value)


def test_pickles_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        SourceError, match=r"has only pytorch_model.bin, which can run code when it is opened"
    ):
        open_source(str(folder))


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(SourceError, match=r"no model.safetensors: get the whole model folder"):
        open_source(str(folder))


def test_code_next_to_a_model_does_not_run(folder: Path) -> None:
    """Its author can name it in both configs: nothing here allows transformers to run it."""
    ran = folder / "ran"
    (folder / "mine.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Mine: pass\n")
    for name, kinds in {
        "config.json": {"AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.Mine"},
        "tokenizer_config.json": {"AutoTokenizer": ["mine.Mine", "mine.Mine"]},
    }.items():
        path = folder / name
        body = json.loads(path.read_text()) if path.is_file() else {}
        body.pop("tokenizer_class", None)
        path.write_text(json.dumps({**body, "auto_map": kinds}))
    source = open_source(str(folder))
    source.read("model.norm.weight")
    # A tokenizer that needs the code is refused; one that transformers knows anyway is loaded without it.
    with contextlib.suppress(SourceError):
        source.tokenizer()
    assert not ran.exists()
