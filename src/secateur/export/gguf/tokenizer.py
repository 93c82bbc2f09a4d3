"""A Hugging Face tokenizer as GGUF metadata.

The way it splits text is recognised by what it does to a text, not by its definition: one rule has many
spellings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from gguf import TokenType

from secateur_runtime.errors import UnsupportedModelError

PROBE = (
    "We'LL it's I'm they'd 1 12 123 1234 12345 naïve ÉCOLE McDonald iPhone9 x+=y; a_b 中文字符 日本語 русский"
    " हिन्दी\n\n  indented\ttab \r\nend.\n\n\n!!!\n ...  trailing   spaces   \n🙂👍 $3.50 (50%)"
    " <b>/path/to</b> {\n    return 0;\n}\n"
)
# llama.cpp takes a token that is a whole word without merging under these names; the other name cuts alike
# and merges.
_UNMERGED = {"llama-bpe": "smaug-bpe", "tekken": ""}
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_SPACE = "\u2581"
_PHI3 = re.compile(r"phi(-?3)+", re.IGNORECASE)
_PHI3_TOKENS = {"</s>", "<unk>", "<s>", "<|endoftext|>"}
_IDS = {"bos": "bos_token_id", "eos": "eos_token_id", "unknown": "unk_token_id", "padding": "pad_token_id"}


def tokenizer_fields(
    tokenizer: Any, settings: Mapping[str, Any], splits: Mapping[str, tuple[str, bool]]
) -> dict[str, Any]:
    """Return metadata under full keys.

    tokenizer: a fast transformers tokenizer. settings: the whole config, for the size of the vocabulary and
    the ends.
    splits: name -> (pattern, digits cut singly) of the ways to cut text that llama.cpp knows.
    Raises UnsupportedModelError for a kind of tokenizer that GGUF has no name for.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise UnsupportedModelError(
            "not supported because the tokenizer has no tokenizer.json: save it once with transformers' fast"
            " tokenizer"
        )
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    model = whole["model"]
    if model["type"] != "BPE":
        raise UnsupportedModelError(
            f"not supported because its tokenizer is of the kind {model['type']}, not BPE or"
            " SentencePiece BPE"
        )
    sentencepiece = bool(model.get("byte_fallback"))
    tokens, types = _tokens(tokenizer, whole, settings["vocab_size"])
    fields: dict[str, Any] = {
        "model": "llama" if sentencepiece else "gpt2",
        "tokens": tokens,
        "token_type": types,
    }
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    if sentencepiece:
        fields |= {
            "pre": "default",
            "scores": _scores(tokens, model["merges"]),
            "add_space_prefix": _adds_space(tokenizer),
        }
    else:
        fields |= {"pre": _split_name(tokenizer, bool(model.get("ignore_merges")), splits), "merges": merges}
    fields |= _special(tokenizer, settings)
    template = _template(tokenizer)
    found = {f"tokenizer.ggml.{key}": value for key, value in fields.items()}
    return found | ({"tokenizer.chat_template": template} if template else {})


def model_name(name: str, tokenizer: Any) -> str:
    """Return `name` such that llama.cpp reads the right thing out of it.

    It drops white space after special tokens, or does not, by whether the name has `phi-3` in it, and then
    needs the tokens of that family.
    """
    wanted = any(token.rstrip and token.special for token in tokenizer.added_tokens_decoder.values())
    if wanted and set(tokenizer.get_vocab()) >= _PHI3_TOKENS:
        return name if _PHI3.search(name) else f"{name} (Phi-3)"
    return _PHI3.sub("phi", name)


def _tokens(tokenizer: Any, whole: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Return text and type of each id; ids without a token, which round a matrix up, are unused ones."""
    added = {entry["id"]: entry for entry in whole["added_tokens"]}
    by_id = {index: token for token, index in tokenizer.get_vocab().items()}
    if max(by_id) >= size:
        raise UnsupportedModelError(
            f"not supported because its tokenizer has {max(by_id) + 1} tokens and its embeddings {size}"
        )
    tokens = [by_id.get(index, f"[PAD{index}]") for index in range(size)]
    unknown = whole["model"].get("unk_token")
    types = [
        _type(token, added.get(index), known=index in by_id, unknown=unknown)
        for index, token in enumerate(tokens)
    ]
    if whole["model"].get("byte_fallback"):
        plain = {index for index, entry in added.items() if not entry["special"]}
        tokens = [
            token.replace(_SPACE, " ") if index in plain else token for index, token in enumerate(tokens)
        ]
    return tokens, types


def _type(token: str, added: Mapping[str, Any] | None, *, known: bool, unknown: str | None) -> int:
    if not known:
        return int(TokenType.UNUSED)
    if token == unknown:
        return int(TokenType.UNKNOWN)
    if added:
        return int(TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED)
    return int(TokenType.BYTE if _BYTE.fullmatch(token) else TokenType.NORMAL)


def _scores(tokens: list[str], merges: list[Any]) -> list[float]:
    """Return for each token a score that orders merges as the tokenizer does.

    The first to be learned is the highest.
    """
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        ranks.setdefault(left + right, rank)
    return [-float(ranks.get(token, len(merges))) for token in tokens]


def _adds_space(tokenizer: Any) -> bool:
    first = tokenizer.convert_ids_to_tokens(tokenizer("a", add_special_tokens=False)["input_ids"])[0]
    return bool(first.startswith(_SPACE))


def _split_name(tokenizer: Any, ignore_merges: bool, splits: Mapping[str, tuple[str, bool]]) -> str:
    """Return llama.cpp's name of the way this tokenizer cuts a text before merging."""
    own = _pieces(tokenizer.backend_tokenizer.pre_tokenizer)
    for name, (pattern, digits) in splits.items():
        if own == _pieces(_splitter(pattern, digits)):
            return name if ignore_merges or name not in _UNMERGED else _UNMERGED[name] or name
    raise UnsupportedModelError(
        f"not supported because its tokenizer cuts text in a way that is none of {', '.join(splits)}"
    )


def _pieces(splitter: Any) -> list[str]:
    return [piece for piece, _ in splitter.pre_tokenize_str(PROBE)]


def _splitter(pattern: str, digits: bool) -> Any:
    from tokenizers import Regex, pre_tokenizers

    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    steps += [pre_tokenizers.Split(Regex(pattern), behavior="isolated")] if pattern else []
    return pre_tokenizers.Sequence(
        [*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not pattern)]
    )


def _special(tokenizer: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        f"{name}_token_id": getattr(tokenizer, attribute) for name, attribute in _IDS.items()
    }
    found = {key: value for key, value in found.items() if value is not None}
    ends = settings.get("eos_token_id")
    others = [end for end in ends if end != found.get("eos_token_id")] if isinstance(ends, list) else []
    if others:
        found["eot_token_id"] = others[-1]
    ids = tokenizer("a")["input_ids"]
    found["add_bos_token"] = "bos_token_id" in found and ids[0] == found["bos_token_id"]
    found["add_eos_token"] = "eos_token_id" in found and ids[-1] == found["eos_token_id"]
    return found


def _template(tokenizer: Any) -> str:
    template = tokenizer.chat_template
    return str(template.get("default", "") if isinstance(template, dict) else template or "")
