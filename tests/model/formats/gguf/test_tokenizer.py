from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import Maker
from tests.tiny_models import TEXT

from secateur.model.formats.gguf.header import GgufHeader, read_header
from secateur.model.formats.gguf.tokenizer import gguf_tokenizer, write_generation_config
from secateur.model.formats.open_source import open_source
from secateur_runtime.errors import SourceError

SAMPLES = [
    TEXT,
    "Hello 1234567 world",
    "  two spaces,\n\n\tand a tab ",
    "naïve café 東京 🌳",
    "it's DON'T we'll",
    "",
    " ",
    "a<|im_end|>b",
    "<s> </s>",
]


def write_vocabulary(path: Path, fill: Callable[[gguf.GGUFWriter], None]) -> GgufHeader:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(256)
    fill(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return read_header(path)


def reloaded(tokenizer: Any, folder: Path) -> Any:
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def test_byte_level_is_the_original(tiny: Maker, tiny_gguf: Maker, tmp_path: Path) -> None:
    original = open_source(str(tiny("llama"))).tokenizer()
    made = open_source(str(tiny_gguf("llama"))).tokenizer()
    again = reloaded(made, tmp_path)
    for text in SAMPLES:
        ids = original(text).input_ids
        assert made(text).input_ids == ids
        assert again(text).input_ids == ids
    assert (made.bos_token, made.eos_token, made.pad_token) == (
        original.bos_token,
        original.eos_token,
        original.pad_token,
    )
    talk = [{"role": "user", "content": "hi"}]
    assert (
        again.apply_chat_template(talk, tokenize=False)
        == original.apply_chat_template(talk, tokenize=False)
        == "<|im_start|>user\nhi<|im_end|>\n"
    )


def test_companions_of_a_gguf_file(tiny_gguf: Maker, tmp_path: Path) -> None:
    open_source(str(tiny_gguf("llama"))).copy_companions(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "generation_config.json",
    }
    assert json.loads((tmp_path / "generation_config.json").read_text()) == {
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }


def test_the_end_of_a_turn_is_an_end(tmp_path: Path) -> None:
    def fill(writer: gguf.GGUFWriter) -> None:
        writer.add_eos_token_id(5)
        writer.add_eot_token_id(3)

    write_generation_config(write_vocabulary(tmp_path / "a.gguf", fill), tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text()) == {"eos_token_id": [3, 5]}


@pytest.fixture(scope="module")
def pieces() -> Any:
    """A SentencePiece model, the reference of what a rebuilt tokenizer must say."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="the reference tokenizer is not installed")
    stored = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines() * 3),
        model_writer=stored,
        vocab_size=420,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=stored.getvalue())


def sentencepiece_header(pieces: Any, path: Path, *, prefix: bool = True, bos: bool = True) -> GgufHeader:
    def fill(writer: gguf.GGUFWriter) -> None:
        indices = range(pieces.get_piece_size())
        kinds = [
            (
                gguf.TokenType.UNKNOWN
                if pieces.is_unknown(index)
                else (
                    gguf.TokenType.CONTROL
                    if pieces.is_control(index)
                    else gguf.TokenType.BYTE
                    if pieces.is_byte(index)
                    else gguf.TokenType.NORMAL
                )
            )
            for index in indices
        ]
        writer.add_tokenizer_model("llama")
        writer.add_token_list([pieces.id_to_piece(index) for index in indices])
        writer.add_token_scores([pieces.get_score(index) for index in indices])
        writer.add_token_types(kinds)
        writer.add_unk_token_id(pieces.unk_id())
        writer.add_bos_token_id(pieces.bos_id())
        writer.add_eos_token_id(pieces.eos_id())
        writer.add_add_bos_token(bos)
        writer.add_add_space_prefix(prefix)

    return write_vocabulary(path, fill)


def test_sentencepiece_says_the_same(pieces: Any, tmp_path: Path) -> None:
    made = gguf_tokenizer(sentencepiece_header(pieces, tmp_path / "a.gguf"))
    again = reloaded(made, tmp_path / "saved")
    for text in ["Hello 1234567 world", "naïve café 東京 🌳", "  two spaces", *TEXT.strip().splitlines()]:
        ids = pieces.encode(text)
        assert made(text, add_special_tokens=False).input_ids == ids
        assert made(text).input_ids == again(text).input_ids == [pieces.bos_id(), *ids]
        assert made.decode(ids) == text


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(
        alphabet=st.characters(exclude_categories=["Cs", "Cc", "Co", "Cn"], exclude_characters="\u2581<"),
        min_size=1,
        max_size=40,
    )
)
def test_sentencepiece_says_the_same_of_any_text(
    pieces: Any, tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    made = gguf_tokenizer(sentencepiece_header(pieces, tmp_path_factory.mktemp("spm") / "a.gguf"))
    assert made(text, add_special_tokens=False).input_ids == pieces.encode(text)


def test_without_a_space_before_the_text(pieces: Any, tmp_path: Path) -> None:
    made = gguf_tokenizer(sentencepiece_header(pieces, tmp_path / "a.gguf", prefix=False, bos=False))
    ids = made("weights").input_ids
    assert ids[0] != pieces.bos_id()
    assert made.convert_ids_to_tokens(ids)[0][0] == "w"
    assert made.decode(ids) == "weights"


@pytest.mark.parametrize(
    ("pre", "text", "cuts"),
    [
        ("gpt-2", "a 1234 It's", ["a", "Ġ1234", "ĠIt", "'s"]),
        ("smollm", "a 1234 It's", ["a", "Ġ", "1", "2", "3", "4", "ĠIt", "'s"]),
        ("llama-bpe", "a 12345 IT'S", ["a", "Ġ", "123", "45", "ĠIT", "'S"]),
        ("qwen2", "a 1234 IT'S", ["a", "Ġ", "1", "2", "3", "4", "ĠIT", "'S"]),
        ("tekken", "aB 12 it's", ["a", "B", "Ġ", "1", "2", "Ġit", "'s"]),
        ("gpt-4o", "aB 1234 it's", ["a", "B", "Ġ", "123", "4", "Ġit's"]),
    ],
)
def test_text_is_cut_as_the_model_was_taught(tmp_path: Path, pre: str, text: str, cuts: list[str]) -> None:
    from tokenizers import pre_tokenizers

    def fill(writer: gguf.GGUFWriter) -> None:
        tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list([*tokens, "it"])
        writer.add_token_merges(["i t"])

    made = gguf_tokenizer(write_vocabulary(tmp_path / "a.gguf", fill))
    assert [piece for piece, _ in made.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)] == cuts


@pytest.mark.parametrize("pre", ["llama-bpe", "qwen2", "tekken", "gpt-4o"])
def test_cuts_are_those_of_transformers(pre: str) -> None:
    mapping = pytest.importorskip("transformers.integrations.gguf.gguf_tokenizer_mapping")
    from tokenizers import Regex, pre_tokenizers

    from secateur.model.formats.gguf.tokenizer import SPLITS

    text = TEXT + " ".join(SAMPLES) + "x1y22z333 ÀÉÎ Straße I'LL we'Ve ...!? \r\n\r\n end  "
    ours, theirs = (
        pre_tokenizers.Split(Regex(pattern), behavior="isolated").pre_tokenize_str(text)
        for pattern in (SPLITS[pre][0], mapping.GGUF_PRE_TOKENIZER_SPLITS[pre])
    )
    assert ours == theirs


def tokens(
    writer: gguf.GGUFWriter,
    *,
    words: tuple[str, ...] = ("a", "b", "ab"),
    merges: tuple[str, ...] = ("a b",),
    pre: str = "gpt-2",
    types: tuple[int, ...] = (),
) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(list(words))
    writer.add_token_merges(list(merges))
    if types:
        writer.add_token_types(list(types))


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (lambda writer: None, "'tokenizer.ggml.tokens' is missing"),
        (lambda writer: writer.add_token_list(["a"]), "'tokenizer.ggml.model' is missing"),
        (
            lambda writer: (writer.add_tokenizer_model("t5"), writer.add_token_list(["a"])),
            "a tokenizer of kind 't5', which cannot be rebuilt",
        ),
        (lambda writer: tokens(writer, pre="chameleon"), "cuts text in an unknown way"),
        (lambda writer: tokens(writer, merges=("ab",)), "merge 'ab' is not a pair"),
        (lambda writer: tokens(writer, merges=("a z",)), "vocabulary and merges do not fit"),
        (lambda writer: tokens(writer, words=("a", "a")), "repeated or untyped tokens"),
        (lambda writer: tokens(writer, types=(1,)), "repeated or untyped tokens"),
    ],
)
def test_damaged_vocabularies(tmp_path: Path, fill: Callable[[gguf.GGUFWriter], None], message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        gguf_tokenizer(write_vocabulary(tmp_path / "a.gguf", fill))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_smollm2_reads_real_text(smollm2: str, shared: Path, tmp_path: Path) -> None:
    text = (shared / "data" / "wikitext-2" / "wiki.test.raw").read_text()
    made = open_source(smollm2).tokenizer()
    ids = made(text, add_special_tokens=False).input_ids
    assert len(ids) == 303_415
    assert made.decode(ids) == text
    assert made.unk_token_id not in ids
    assert reloaded(made, tmp_path)(text, add_special_tokens=False).input_ids == ids
