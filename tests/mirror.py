"""A small folder laid out like the hub, for lm-eval's own task definitions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_WORDS = [
    "light",
    "water",
    "stone",
    "river",
    "branch",
    "winter",
    "engine",
    "garden",
    "copper",
    "signal",
    "planet",
    "mirror",
    "thunder",
    "harvest",
]


def write_data_set(folder: Path, config: str, splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write a data set with a card that names the file of each split."""
    folder.mkdir(parents=True)
    lines = ["---", "configs:", f"- config_name: {config}", "  data_files:"]
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        lines += [f"  - split: {split}", f"    path: {split}.jsonl"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))


def write_mirror(folder: Path) -> Path:
    """Write ARC, OpenBookQA, LAMBADA, WikiText and CrowS-Pairs with a handful of made-up rows each."""
    everywhere = ("train", "validation", "test")
    write_data_set(
        folder / "allenai" / "ai2_arc",
        "ARC-Easy",
        {split: [_arc(n) for n in range(6)] for split in everywhere},
    )
    write_data_set(
        folder / "allenai" / "openbookqa",
        "main",
        {split: [_book(n) for n in range(5)] for split in everywhere},
    )
    write_data_set(
        folder / "EleutherAI" / "lambada_openai",
        "default",
        {"test": [{"text": _sentence(n, 9)} for n in range(4)]},
    )
    pages = [{"page": _sentence(n, 150)} for n in range(3)]
    write_data_set(
        folder / "EleutherAI" / "wikitext_document_level",
        "wikitext-2-raw-v1",
        dict.fromkeys(everywhere, pages),
    )
    write_data_set(
        folder / "jannalu" / "crows_pairs_multilingual", "english", {"test": [_pair(n) for n in range(18)]}
    )
    return folder


def _sentence(seed: int, length: int) -> str:
    return " ".join(_WORDS[(seed * 7 + place * (3 + seed)) % len(_WORDS)] for place in range(length))


def _arc(seed: int) -> dict[str, Any]:
    texts = [_sentence(seed + choice, 1 + choice) for choice in range(4)]
    return {
        "question": _sentence(seed, 8) + "?",
        "choices": {"text": texts, "label": list("ABCD")},
        "answerKey": "ABCD"[seed % 4],
    }


def _book(seed: int) -> dict[str, Any]:
    row = _arc(seed + 5)
    return {
        "id": str(seed),
        "question_stem": row["question"],
        "choices": row["choices"],
        "answerKey": row["answerKey"],
    }


def _pair(seed: int) -> dict[str, str]:
    kind = ("gender", "age", "religion")[seed % 3]
    more, less = _sentence(seed, 6), _sentence(seed, 5) + " other"
    return {
        "sent_more": more,
        "sent_less": less,
        "stereo_antistereo": "stereo" if seed % 2 else "antistereo",
        "bias_type": kind,
    }
