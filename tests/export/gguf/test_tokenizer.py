"""Tokenizers as GGUF metadata, compared with what llama.cpp makes of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Maker
from tests.tiny_models import TEXT

from secateur.export.gguf.tokenizer import model_name, tokenizer_fields
from secateur.model.formats.gguf.header import read_header
from secateur.model.formats.gguf.tokenizer import SPLITS
from secateur.model.formats.open_source import open_source
from secateur.pipeline.export.gguf import export
from secateur_runtime.errors import UnsupportedModelError

SPACE = "\u2581"


def byte_level(kind: str, *, ignore_merges: bool = False, **changes: Any) -> Any:
    """Train a byte-level tokenizer that cuts text as llama.cpp's `kind` does."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    pattern, digits = SPLITS[kind]
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    steps += [pre_tokenizers.Split(Regex(pattern), behavior="isolated")] if pattern else []
    backend = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not pattern)]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator(
        [TEXT],
        trainers.BpeTrainer(
            vocab_size=384, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", **changes)


def sentencepiece(*, prefix: bool) -> Any:
    """Make a tokenizer that falls back to bytes, as SentencePiece's do, and begins texts with `<s>`."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    learner = Tokenizer(models.BPE())
    words = [SPACE + word for word in TEXT.split()]
    learner.train_from_iterator(words, trainers.BpeTrainer(vocab_size=100, show_progress=False))
    learnt = json.loads(learner.to_str())["model"]
    names = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *sorted(learnt["vocab"], key=learnt["vocab"].__getitem__),
    ]
    vocabulary = {name: index for index, name in enumerate(names)}
    merges = [tuple(pair) for pair in learnt["merges"]]
    backend = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    replace = normalizers.Replace(" ", SPACE)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), replace]) if prefix else replace
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def with_tokenizer(whole: Path, folder: Path, tokenizer: Any) -> Path:
    """Copy the model `whole` with another tokenizer."""
    shutil.copytree(whole, folder, ignore=shutil.ignore_patterns("tokenizer*", "chat_template*"))
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["gpt-2", "smollm", "llama-bpe", "qwen2", "tekken", "gpt-4o"])
def test_ways_to_cut_text(tiny: Maker, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("xllamacpp")
    tokenizer = byte_level(kind, ignore_merges=kind in ("llama-bpe", "tekken"))
    folder = with_tokenizer(tiny("qwen3"), tmp_path / "model", tokenizer)
    done = export(str(folder), tmp_path / "a.gguf", kind="f32")
    assert read_header(done.out).get("tokenizer.ggml.pre") == kind


def test_whole_words_that_are_merged_all_the_same() -> None:
    fields = tokenizer_fields(byte_level("llama-bpe"), {"vocab_size": 384}, SPLITS)
    assert fields["tokenizer.ggml.pre"] == "smaug-bpe"


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece(tiny: Maker, tmp_path: Path, prefix: bool) -> None:
    pytest.importorskip("xllamacpp")
    folder = with_tokenizer(tiny("llama"), tmp_path / "model", sentencepiece(prefix=prefix))
    header = read_header(export(str(folder), tmp_path / "a.gguf", kind="f32").out)
    assert header.get("tokenizer.ggml.model") == "llama"
    assert header.get("tokenizer.ggml.add_space_prefix") is prefix
    assert header.get("tokenizer.ggml.add_bos_token") is True
    assert header.get("tokenizer.ggml.token_type")[:4] == [2, 3, 3, 6]
    text = "A gardener cuts 30 branches. Ünïcode 🙂"
    assert (
        open_source(str(tmp_path / "a.gguf")).tokenizer()(text)["input_ids"]
        == open_source(str(folder)).tokenizer()(text)["input_ids"]
    )


def test_ids_without_a_token_are_unused() -> None:
    tokenizer = byte_level("gpt-2")
    size = len(tokenizer) + 2
    fields = tokenizer_fields(tokenizer, {"vocab_size": size}, SPLITS)
    assert fields["tokenizer.ggml.tokens"][-1] == f"[PAD{size - 1}]"
    assert fields["tokenizer.ggml.token_type"][-2:] == [5, 5]
    with pytest.raises(
        UnsupportedModelError, match=f"its tokenizer has {len(tokenizer)} tokens and its embeddings 300"
    ):
        tokenizer_fields(tokenizer, {"vocab_size": 300}, SPLITS)


def test_the_end_of_a_turn() -> None:
    tokenizer = byte_level("gpt-2")
    fields = tokenizer_fields(tokenizer, {"vocab_size": 384, "eos_token_id": [1, 7]}, SPLITS)
    assert (fields["tokenizer.ggml.eos_token_id"], fields["tokenizer.ggml.eot_token_id"]) == (1, 7)


def test_tokenizers_that_gguf_has_no_name_for() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    odd = byte_level("gpt-2")
    odd.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    with pytest.raises(UnsupportedModelError, match="cuts text in a way that is none of gpt-2, smollm"):
        tokenizer_fields(odd, {"vocab_size": 384}, SPLITS)
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(UnsupportedModelError, match="of the kind WordLevel"):
        tokenizer_fields(words, {"vocab_size": 384}, SPLITS)


def test_the_name_tells_llama_cpp_of_white_space() -> None:
    """It looks for `phi-3` in the name, and aborts without that family's tokens."""
    from tokenizers import AddedToken

    plain = byte_level("gpt-2")
    for name in ("my-phi3", "my-phi33", "my-phi-3-3"):
        assert model_name(name, plain) == "my-phi"
    assert model_name("pruned", plain) == "pruned"
    stripping = byte_level("gpt-2")
    stripping.add_tokens(
        [
            AddedToken("<unk>", rstrip=True, special=True),
            AddedToken("<|endoftext|>", rstrip=True, special=True),
        ],
        special_tokens=True,
    )
    assert model_name("pruned", stripping) == "pruned (Phi-3)"
    assert model_name("my-phi3", stripping) == "my-phi3"
