"""Tiny models with a part of the vocabulary of another, in another order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer


def fewer_tokens(body: dict[str, Any], merges: int, *, without: str = "") -> tuple[dict[str, Any], list[int]]:
    """Return a byte-level `tokenizer.json` with only its first `merges`, and the old ids of its tokens.

    The tokens are in another order.
    without: letters that it does not know either.
    """
    vocabulary, pairs = body["model"]["vocab"], body["model"]["merges"]
    gone = {"".join(pair) for pair in pairs[merges:]} - {"".join(pair) for pair in pairs[:merges]} | set(
        without
    )
    kept = [token for token in reversed(vocabulary) if token not in gone]
    new = {token: place for place, token in enumerate(kept)}
    added = [token | {"id": new[token["content"]]} for token in body["added_tokens"]]
    model = body["model"] | {
        "vocab": new,
        "merges": [pair for pair in pairs[:merges] if not set("".join(pair)) & set(without)],
    }
    return body | {"model": model, "added_tokens": sorted(added, key=lambda token: int(token["id"]))}, [
        vocabulary[token] for token in kept
    ]


def save_with_fewer_tokens(parent: Path, folder: Path, merges: int, **config: Any) -> Path:
    """Write the model in `parent` with the tokens of `fewer_tokens`, in its embeddings and head too."""
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    body, rows = fewer_tokens(json.loads((parent / "tokenizer.json").read_text()), merges)
    whole = AutoModelForCausalLM.from_pretrained(parent)
    ids = {
        f"{name}_token_id": rows.index(getattr(whole.config, f"{name}_token_id"))
        for name in ("bos", "eos", "pad")
    }
    state = {
        name: weight[torch.tensor(rows)] if len(weight) == whole.config.vocab_size else weight
        for name, weight in whole.state_dict().items()
    }
    whole.config.update({"vocab_size": len(rows), **ids, **config})
    made = AutoModelForCausalLM.from_config(whole.config)
    made.load_state_dict(state)
    made.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(body)),
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
    )
    tokenizer.save_pretrained(folder)
    return folder
