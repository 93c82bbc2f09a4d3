"""Rebuild the tokenizer that a GGUF file describes.

transformers' own conversion is not used: it knows few of the pre-tokenizers (SmolLM's digits are not split,
so token ids differ), and it reads the whole vocabulary through `GGUFReader`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from secateur.model.formats.gguf.config import TOKEN_IDS
from secateur.model.formats.gguf.header import GgufHeader
from secateur_runtime.errors import SourceError

_CONTROL = 3
_USER_DEFINED = 4
_SPACE = "\u2581"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_LLAMA3 = rf"{_CONTRACTIONS}|{_LEAD}\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_TAIL}"
_QWEN2 = rf"{_CONTRACTIONS}|{_LEAD}\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_TAIL}"
_TEKKEN = (
    rf"{_LEAD}{_UPPER}*{_LOWER}+|{_LEAD}{_UPPER}+{_LOWER}*|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_TAIL}"
)
_GPT4O = (
    rf"{_LEAD}{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|{_LEAD}{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_TAIL}"
)
# How text is cut before merging, by `tokenizer.ggml.pre`; an empty pattern is GPT-2's own, a digit flag cuts
# digits singly first.
SPLITS: Mapping[str, tuple[str, bool]] = {
    "gpt-2": ("", False),
    "smollm": ("", True),
    "llama-bpe": (_LLAMA3, False),
    "llama3": (_LLAMA3, False),
    "llama-v3": (_LLAMA3, False),
    "smaug-bpe": (_LLAMA3, False),
    "dbrx": (_LLAMA3, False),
    "qwen2": (_QWEN2, False),
    "deepseek-r1-qwen": (_QWEN2, False),
    "tekken": (_TEKKEN, False),
    "gpt-4o": (_GPT4O, False),
}
_NAMED = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}


def gguf_tokenizer(header: GgufHeader) -> Any:
    """Return a transformers tokenizer.

    Raises SourceError where the file describes none, or one of an unknown kind.
    """
    from transformers import PreTrainedTokenizerFast

    tokens = header.words("tokenizer.ggml.tokens")
    model = header.word("tokenizer.ggml.model")
    kinds = header.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    if model not in ("gpt2", "llama"):
        raise SourceError(
            f"{header.path} has a tokenizer of kind {model!r}, which cannot be rebuilt: prune the original"
            " model instead"
        )
    if not isinstance(kinds, list) or len(kinds) != len(tokens) or len(set(tokens)) != len(tokens):
        raise SourceError(
            f"{header.path} is damaged: its vocabulary has repeated or untyped tokens; get the file again"
        )
    backend = _byte_level(header, tokens) if model == "gpt2" else _sentencepiece(header, tokens, kinds)
    _add_whole_tokens(backend, tokens, kinds)
    named = _named(header, tokens)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        add_bos_token=bool(header.get("tokenizer.ggml.add_bos_token", model == "llama"))
        and "bos_token" in named,
        add_eos_token=bool(header.get("tokenizer.ggml.add_eos_token", False)) and "eos_token" in named,
        clean_up_tokenization_spaces=False,
        model_max_length=header.integer(f"{header.word('general.architecture')}.context_length"),
        **named,
    )
    template = header.get("tokenizer.chat_template")
    if isinstance(template, str):
        tokenizer.chat_template = template
    return tokenizer


def write_generation_config(header: GgufHeader, folder: Path) -> None:
    """Write `generation_config.json`; its end tokens include the end-of-turn token if the file names one."""
    body: dict[str, Any] = {
        key: header.integer(stored, least=0) for key, stored in TOKEN_IDS.items() if stored in header
    }
    if "tokenizer.ggml.eot_token_id" in header and "eos_token_id" in body:
        ends = {body["eos_token_id"], header.integer("tokenizer.ggml.eot_token_id", least=0)}
        body["eos_token_id"] = sorted(ends) if len(ends) > 1 else body["eos_token_id"]
    (folder / "generation_config.json").write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")


def _named(header: GgufHeader, tokens: list[str]) -> dict[str, str]:
    found = {}
    for name, key in _NAMED.items():
        index = header.get(f"tokenizer.ggml.{key}")
        if isinstance(index, int) and 0 <= index < len(tokens):
            found[name] = tokens[index]
    return found


def _byte_level(header: GgufHeader, tokens: list[str]) -> Tokenizer:
    kind = header.word("tokenizer.ggml.pre") if "tokenizer.ggml.pre" in header else "default"
    if kind not in SPLITS:
        raise SourceError(
            f"{header.path} cuts text in an unknown way ({kind!r}): prune the original model instead"
        )
    pattern, digits = SPLITS[kind]
    merges = [_pair(header, merge) for merge in header.words("tokenizer.ggml.merges")]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    backend = Tokenizer(_bpe(header, vocab=vocabulary, merges=merges))
    steps: list[pre_tokenizers.PreTokenizer] = (
        [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    )
    steps += [pre_tokenizers.Split(Regex(pattern), behavior="isolated")] if pattern else []
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not pattern))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    return backend


def _pair(header: GgufHeader, merge: str) -> tuple[str, str]:
    left, space, right = merge.partition(" ")
    if not left or not space or not right:
        raise SourceError(f"{header.path} is damaged: merge {merge!r} is not a pair; get the file again")
    return left, right


def _bpe(header: GgufHeader, **options: Any) -> models.BPE:
    try:
        return models.BPE(**options)
    # tokenizers raises bare Exception for a merge whose result is not in the vocabulary.
    except Exception as error:  # noqa: BLE001
        raise SourceError(
            f"{header.path} is damaged: its vocabulary and merges do not fit ({error}); get the file again"
        ) from None


def _sentencepiece(header: GgufHeader, tokens: list[str], kinds: list[int]) -> Tokenizer:
    unknown = header.get("tokenizer.ggml.unknown_token_id")
    unk = tokens[unknown] if isinstance(unknown, int) and 0 <= unknown < len(tokens) else None
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = list(_merges(tokens, kinds, vocabulary))
    backend = Tokenizer(
        _bpe(header, vocab=vocabulary, merges=merges, unk_token=unk, fuse_unk=True, byte_fallback=True)
    )
    prefix = bool(header.get("tokenizer.ggml.add_space_prefix", True))
    replace = normalizers.Replace(" ", _SPACE)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), replace]) if prefix else replace
    steps: list[decoders.Decoder] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return backend


def _merges(tokens: list[str], kinds: list[int], vocabulary: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Yield every pair that makes a token, in the order of the vocabulary.

    SentencePiece learned the tokens in that order.
    """
    usable = {
        token for token, kind in zip(tokens, kinds, strict=True) if kind not in (_CONTROL, _USER_DEFINED)
    }
    for token in tokens:
        if token in usable:
            cuts = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
            yield from sorted(
                (pair for pair in cuts if pair[0] in usable and pair[1] in usable),
                key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]),
            )


def _add_whole_tokens(backend: Tokenizer, tokens: list[str], kinds: list[int]) -> None:
    pairs = list(zip(tokens, kinds, strict=True))
    backend.add_special_tokens(
        [
            AddedToken(token, normalized=False, special=True)
            for token, kind in pairs
            if kind == _CONTROL and token
        ]
    )
    backend.add_tokens(
        [
            AddedToken(token, normalized=False, special=False)
            for token, kind in pairs
            if kind == _USER_DEFINED and token
        ]
    )
