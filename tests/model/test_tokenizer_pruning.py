"""Tokenizers of fewer tokens.

The same pieces wherever all of them are left, the same text in any case, and every file of one mind.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import Maker
from tests.tiny_models import TEXT

from secateur.model.formats.open_source import open_source
from secateur.model.tokenizer_pruning import (
    Vocabulary,
    check_tokenizer,
    fewer_ids,
    narrow_tokenizer,
    vocabulary,
)
from secateur_runtime.errors import UnsupportedModelError, VerificationError

WORDS = [*TEXT.split(), " the", "\n\n", "  ", " 東京", "🌳", "naïve", "<|im_end|>", "▁", "\t"]
CONFIG = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 2}


def sentencepiece() -> Any:
    """Train a tokenizer of SentencePiece's kind, with bytes to fall back on."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = [AddedToken(token, special=True, normalized=False) for token in ("<unk>", "<s>", "</s>")]
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    backend.train_from_iterator([TEXT.replace(" ", "▁")], trainer)
    # The trainer takes bytes for special tokens; a SentencePiece vocabulary does not.
    body = json.loads(backend.to_str())
    body["added_tokens"] = body["added_tokens"][:3]
    backend = Tokenizer.from_str(json.dumps(body))
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


@pytest.fixture(scope="module")
def tokenizers(tiny: Maker) -> dict[str, Any]:
    return {"byte level": open_source(str(tiny("llama"))).tokenizer(), "sentencepiece": sentencepiece()}


KINDS = ("byte level", "sentencepiece")


def closed(known: Vocabulary, some: Iterator[int] | list[int]) -> list[int]:
    return sorted(known.fixed.union(some, *(known.ancestors(index) for index in some)))


def narrowed(tokenizer: Any, kept: list[int], folder: Path) -> Any:
    from transformers import AutoTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    narrow_tokenizer(folder, tokenizer, kept)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("kind", KINDS)
class TestBoth:
    @settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_text_comes_back_and_pieces_that_are_left_stay(
        self, tokenizers: dict[str, Any], tmp_path: Path, kind: str, data: st.DataObject
    ) -> None:
        before = tokenizers[kind]
        known = vocabulary(before, CONFIG)
        kept = closed(
            known, data.draw(st.lists(st.sampled_from(sorted(known.tokens)), max_size=60, unique=True))
        )
        found = narrowed(before, kept, tmp_path / kind)
        check_tokenizer(found, before, kept)
        for text in data.draw(
            st.lists(
                st.lists(st.sampled_from(WORDS), max_size=8).map("".join) | st.text(max_size=12), max_size=8
            )
        ):
            ids, old = (
                found(text, add_special_tokens=False)["input_ids"],
                before(text, add_special_tokens=False)["input_ids"],
            )
            assert found.decode(ids) == before.decode(old)
            assert set(kept) - set(old) or len(kept) == len(old)
            if set(old) <= set(kept):
                assert [kept[index] for index in ids] == old

    def test_special_tokens_bytes_and_named_ids_stay(self, tokenizers: dict[str, Any], kind: str) -> None:
        known = vocabulary(
            tokenizers[kind], {"eos_token_id": [300, 301], "pad_token_id": None, "bos_token_id": 10**6}
        )
        fixed = {known.tokens[index] for index in known.fixed}
        assert {300, 301} <= known.fixed
        assert set(tokenizers[kind].all_special_tokens) <= fixed
        assert len(fixed) >= 256 + 3

    def test_what_a_token_is_merged_from_spells_it(
        self, tokenizers: dict[str, Any], tmp_path: Path, kind: str
    ) -> None:
        before = tokenizers[kind]
        known = vocabulary(before, CONFIG)
        longest = max(set(known.tokens) - known.fixed, key=lambda index: len(known.tokens[index]))
        assert len(known.ancestors(longest)) >= 2
        kept = closed(known, [longest])
        text = before.decode([longest])
        (old,) = (index for index in before(text, add_special_tokens=False)["input_ids"] if index == longest)
        assert (
            kept.index(old) in narrowed(before, kept, tmp_path)(text, add_special_tokens=False)["input_ids"]
        )

    def test_a_tokenizer_that_spells_otherwise_is_refused(
        self, tokenizers: dict[str, Any], tmp_path: Path, kind: str
    ) -> None:
        before = tokenizers[kind]
        known = vocabulary(before, CONFIG)
        kept = closed(known, sorted(known.tokens)[-40:])
        found = narrowed(before, kept, tmp_path)
        check_tokenizer(found, before, kept)
        wrong = [*kept]
        wrong[-1], wrong[-2] = wrong[-2], wrong[-1]
        with pytest.raises(VerificationError, match="another way"):
            check_tokenizer(found, before, wrong)


def test_every_file_gets_the_new_ids(tmp_path: Path) -> None:
    before = sentencepiece()
    before.save_pretrained(tmp_path)
    (tmp_path / "merges.txt").write_text("")
    (tmp_path / "tokenizer.model").write_bytes(b"")
    (tmp_path / "added_tokens.json").write_text(json.dumps({"</s>": 2, "gone": 499}))
    (tmp_path / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [2, 300], "suppress_tokens": [300, 310], "temperature": 0.5})
    )
    said = json.loads((tmp_path / "tokenizer_config.json").read_text())
    said["added_tokens_decoder"] = {"2": {"content": "</s>"}, "499": {"content": "gone"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
    # As if <unk> could go, so that every id moves.
    kept = [1, 2, *range(3, 259), 300]
    whole = json.loads(before.backend_tokenizer.to_str())
    whole["added_tokens"] = whole["added_tokens"][1:]
    whole["model"]["unk_token"] = None
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    narrow_tokenizer(
        tmp_path, PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(whole))), kept
    )
    body = json.loads((tmp_path / "tokenizer.json").read_text())
    assert [entry["id"] for entry in body["added_tokens"]] == [0, 1]
    assert body["post_processor"]["special_tokens"]["<s>"]["ids"] == [0]
    assert sorted(body["model"]["vocab"].values()) == list(range(len(kept)))
    assert json.loads((tmp_path / "added_tokens.json").read_text()) == {"</s>": 1}
    assert json.loads((tmp_path / "generation_config.json").read_text()) == {
        "eos_token_id": [1, 258],
        "suppress_tokens": [258],
        "temperature": 0.5,
    }
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["added_tokens_decoder"] == {
        "1": {"content": "</s>"}
    }
    assert not (tmp_path / "merges.txt").exists()
    assert not (tmp_path / "tokenizer.model").exists()


def test_ids_of_a_config() -> None:
    config = {
        "eos_token_id": [4, 9],
        "bos_token_id": 2,
        "pad_token_id": None,
        "decoder_start_token_id": 3,
        "bad_words_ids": [[2, 4], [3]],
        "hidden_size": 4,
    }
    assert fewer_ids(config, [2, 4, 9]) == {
        "eos_token_id": [1, 2],
        "bos_token_id": 0,
        "pad_token_id": None,
        "decoder_start_token_id": None,
        "bad_words_ids": [[0, 1]],
        "hidden_size": 4,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [({"type": "Unigram"}, "Unigram"), ({"end_of_word_suffix": "</w>"}, "marks inside words")],
)
def test_other_kinds_of_tokenizers_are_refused(
    tokenizers: dict[str, Any], change: dict[str, str], message: str
) -> None:
    class Other:
        is_fast = True

        @property
        def backend_tokenizer(self) -> Any:
            return self

        def to_str(self) -> str:
            body = copy.deepcopy(json.loads(tokenizers["byte level"].backend_tokenizer.to_str()))
            body["model"] |= change
            return json.dumps(body)

        def get_vocab(self) -> dict[str, int]:
            return {}

    with pytest.raises(UnsupportedModelError, match=message):
        vocabulary(Other(), {})
    with pytest.raises(UnsupportedModelError, match=r"tokenizer\.json"):
        vocabulary(object(), {})
