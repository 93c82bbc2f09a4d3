"""Remove tokens from a byte-pair tokenizer, and rewrite its files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from secateur_runtime.errors import UnsupportedModelError, VerificationError

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_REDUNDANT = ("vocab.json", "merges.txt", "tokenizer.model", "spiece.model")
_SUPPRESSED = ("suppress_tokens", "begin_suppress_tokens")
_PROBE = (
    "We'LL it's 1 12 12345 naïve ÉCOLE iPhone9 x+=y; a_b 中文字符 日本語 русский हिन्दी\n\n  indented\ttab"
    " \r\n"
    "end.\n\n\n!!!\n ...  trailing   spaces   \n🙂👍 $3.50 (50%) <b>/path/to</b> {\n    return 0;\n}\n"
)


@dataclass(frozen=True)
class Vocabulary:
    """The vocabulary and the merges of a tokenizer.

    ids: token -> id.
    fixed: ids of the tokens that must stay, so that every text and every part of a chat can be encoded.
    ranks: pair of tokens -> its place in the list of merges.
    """

    ids: Mapping[str, int]
    fixed: frozenset[int]
    ranks: Mapping[tuple[str, str], int]

    @cached_property
    def tokens(self) -> dict[int, str]:
        """Id -> token."""
        return {index: token for token, index in self.ids.items()}

    def ancestors(self, index: int) -> frozenset[int]:
        """Return the ids of the tokens that byte-pair encoding merges on the way to the token `index`.

        Empty for a token of one piece, and for one that no merges make. The merges inside a token do not
        depend on the text around it, so a token whose ancestors are retained is still made everywhere.
        """
        parts = list(self.tokens[index])
        made = [self.ids.get(part) for part in parts] if len(parts) > 1 else []
        while len(parts) > 1:
            rank, place = min(
                (self.ranks.get(pair, len(self.ranks)), place) for place, pair in enumerate(pairwise(parts))
            )
            if rank == len(self.ranks):
                return frozenset()
            parts[place : place + 2] = ["".join(parts[place : place + 2])]
            made.append(self.ids.get(parts[place]))
        return frozenset(one for one in made if one is not None) - {index}


def vocabulary(tokenizer: Any, config: Mapping[str, Any]) -> Vocabulary:
    """Return the vocabulary of a fast transformers tokenizer.

    Raises UnsupportedModelError if it is not byte-pair encoding.
    """
    whole = _parsed(tokenizer)
    model = whole["model"]
    ids = dict(tokenizer.get_vocab())
    added = {entry["id"] for entry in whole["added_tokens"]}
    # A space that is spelled in bytes would not come back as a space.
    named = {
        ids[token] for token in (model.get("unk_token"), *"".join(tokenizer.tokenize(" "))) if token in ids
    }
    said = {
        index for key, value in config.items() if key.endswith("_token_id") for index in _listed(value)
    } & set(ids.values())
    ranks = {pair: rank for rank, pair in reversed(list(enumerate(_pairs(model))))}
    return Vocabulary(ids, frozenset(added | named | said | _letters(model, ids)), ranks)


def _parsed(tokenizer: Any) -> dict[str, Any]:
    if not getattr(tokenizer, "is_fast", False):
        raise UnsupportedModelError(
            "not supported because the tokenizer has no tokenizer.json: save it once with transformers' fast"
            " tokenizer"
        )
    whole: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    model = whole["model"]
    if model["type"] != "BPE" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        kind = model["type"] if model["type"] != "BPE" else "BPE with marks inside words"
        raise UnsupportedModelError(
            f"not supported because its tokenizer is of the kind {kind}, and tokens are pruned of plain"
            " byte-pair encoding"
        )
    return whole


def _letters(model: Mapping[str, Any], ids: Mapping[str, int]) -> set[int]:
    """Return the ids of the bytes, or of all single characters where there is no fallback to bytes."""
    if model.get("byte_fallback"):
        return {index for token, index in ids.items() if _BYTE.fullmatch(token)}
    return {index for token, index in ids.items() if len(token) == 1}


def _pairs(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (left, right)
        for left, right in (pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"])
    ]


def _listed(value: Any) -> list[int]:
    return [one for one in (value if isinstance(value, list) else [value]) if type(one) is int]


def fewer_ids(config: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """Return a config or generation config whose token ids are places in `kept`.

    The id of a removed token becomes None, or is removed from its list.
    """
    new = {old: place for place, old in enumerate(kept)}
    found = dict(config)
    for key, value in config.items():
        if key in _SUPPRESSED or key.endswith("_token_id"):
            found[key] = (
                [new[one] for one in value if one in new] if isinstance(value, list) else new.get(value)
            )
        elif key == "bad_words_ids" and value:
            found[key] = [[new[one] for one in word] for word in value if new.keys() >= set(word)]
    return found


def narrow_tokenizer(folder: Path, tokenizer: Any, kept: Sequence[int]) -> None:
    """Rewrite the tokenizer and the generation config in `folder` for fewer tokens.

    kept: retained ids, ascending; they become 0, 1, 2 and so on. tokenizer: the whole one.
    Files of the tokenizer in older formats, which repeat its content, are removed.
    """
    new = {old: place for place, old in enumerate(kept)}
    whole = _parsed(tokenizer)
    whole["model"] = _fewer_merges(whole["model"], new)
    whole["added_tokens"] = [{**entry, "id": new[entry["id"]]} for entry in whole["added_tokens"]]
    whole["post_processor"] = _renumbered(whole.get("post_processor"), new)
    whole["padding"] = _renumbered(whole.get("padding"), new)
    _write(folder / "tokenizer.json", whole)
    for name in _REDUNDANT:
        (folder / name).unlink(missing_ok=True)
    _rewrite(folder / "tokenizer_config.json", lambda body: _with_decoder(body, new))
    _rewrite(
        folder / "added_tokens.json",
        lambda body: {token: new[index] for token, index in body.items() if index in new},
    )
    _rewrite(folder / "generation_config.json", lambda body: fewer_ids(body, kept))


def _fewer_merges(model: Mapping[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    vocab = {token: new[index] for token, index in model["vocab"].items() if index in new}
    merges = [
        [left, right]
        for left, right in _pairs(model)
        if left in vocab and right in vocab and left + right in vocab
    ]
    return {**model, "vocab": vocab, "merges": merges}


def _renumbered(part: Any, new: Mapping[int, int]) -> Any:
    """Return a part of a tokenizer.json that names tokens, with their new ids."""
    if isinstance(part, list):
        return [_renumbered(one, new) for one in part]
    if not isinstance(part, dict):
        return part
    found: dict[str, Any] = {}
    for key, value in part.items():
        if key == "ids":
            found[key] = [new[one] for one in value]
        elif key in ("sep", "cls"):
            found[key] = [value[0], new[value[1]]]
        else:
            found[key] = new[value] if key == "pad_id" else _renumbered(value, new)
    return found


def _with_decoder(body: dict[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    if "added_tokens_decoder" in body:
        body["added_tokens_decoder"] = {
            str(new[int(index)]): entry
            for index, entry in body["added_tokens_decoder"].items()
            if int(index) in new
        }
    return body


def _rewrite(path: Path, change: Any) -> None:
    if path.is_file():
        _write(path, change(json.loads(path.read_text(encoding="utf-8"))))


def _write(path: Path, body: Any) -> None:
    path.write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_tokenizer(found: Any, before: Any, kept: Sequence[int]) -> None:
    """Raise VerificationError unless `found`, whose ids are places in `kept`, encodes text as `before` does.

    Text that `before` encodes in retained tokens alone must get the same tokens. All other text must decode
    to the same text.
    """
    texts = [_PROBE, *(before.decode([index]) for index in kept)]
    given, meant = (
        one(texts, add_special_tokens=False, verbose=False)["input_ids"] for one in (found, before)
    )
    alive = set(kept)
    for text, ids, old in zip(texts, given, meant, strict=True):
        spelled = [kept[place] for place in ids if place < len(kept)]
        if spelled != old and (
            alive.issuperset(old) or len(spelled) < len(ids) or before.decode(spelled) != before.decode(old)
        ):
            raise VerificationError(
                f"the written tokenizer spells {text[:40]!r} in another way than it should; nothing was kept"
            )
