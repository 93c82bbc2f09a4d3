"""How `golden.py` reads files: as bytes, or as what two runs of a commit write alike; and where two part."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from golden_commands import Command

STDOUT = "stdout"
_VERSIONS = frozenset({"secateur", "software"})
_MOVING = frozenset({"seconds", "processor_seconds", "peak_memory", "decision_median_us", "decision_p99_us"})
_TIMES = re.compile(
    r"\bseconds +[\d.]+ *|\b\d+(?:[.,]\d+)* ?(?:s|seconds|ms|us)\b|\b\d{4}-\d\d-\d\d\b|\b\d+\.\d+\.\d+\S*"
)
# Plans are compared themselves; their digest changed with the section that version 2 added.
_PLAN = re.compile(r"(?i)\b(plan\W+(?:digest\W+)?)sha256:[0-9a-f]{64}")
_NUMBERS = re.compile(r"\d[\d.,]*")
# Pattern of a file -> how it is read; other files are bytes.
_WAYS = (
    ("plan.json", "json"),
    ("secateur.json", "json"),
    ("out.json", "json"),
    (STDOUT, "json"),
    ("*.md", "text"),
    ("*.html", "text"),
    ("*.csv", "text"),
)


def is_one_of(name: str, patterns: Iterable[str]) -> bool:
    """Return whether the last parts of a path meet one of the patterns; a star stays within its part."""
    return any(PurePosixPath(name).match(pattern) for pattern in patterns)


def meaning(path: Path, work: Path, command: Command) -> Any:
    """Return what a file of a command says, without what two runs of one commit write differently.

    work: the folder that the command ran in, whose name is left out of texts.
    """
    ways = (way for pattern, way in (*command.ways, *_WAYS) if is_one_of(path.as_posix(), [pattern]))
    way = next(ways, "bytes")
    body = path.read_bytes()
    if way == "bytes":
        return body
    if way == "tensors":
        end = 8 + int.from_bytes(body[:8], "little")
        return {"header": json.loads(body[8:end]), "values": body[end:]}
    text = _PLAN.sub(r"\1...", body.decode().replace(str(work), "WORK"))
    parsed = json_in(text) if way == "json" else None
    if parsed is not None:
        if isinstance(parsed, dict) and {"made_by", "sparsity"} <= parsed.keys():
            parsed = {key: value for key, value in parsed.items() if key not in ("version", "execution")}
        return steady(parsed, _VERSIONS | _MOVING | set(command.moving))
    return (_NUMBERS if way == "words" else _TIMES).sub("...", text).splitlines()


def json_in(text: str) -> Any:
    """Return the JSON that a text ends with, or None."""
    starts = [place for place in (text.find("{"), text.find("[")) if place >= 0]
    try:
        return json.loads(text[min(starts) :]) if starts else None
    except ValueError:
        return None


def steady(value: Any, moving: frozenset[str]) -> Any:
    """Return JSON without `moving` keys, and without the values of records that count seconds or memory."""
    if isinstance(value, list):
        return [steady(item, moving) for item in value]
    if not isinstance(value, dict):
        return value
    measured = value.get("unit") == "s" or "memory" in str(value.get("name", ""))
    dropped = moving | {"value", "standard_error"} if measured else moving
    return {key: steady(item, moving) for key, item in value.items() if key not in dropped}


def parting(before: Any, after: Any, where: str = "") -> str:
    """Return in few words where two contents part."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            if key not in before or key not in after:
                return f"{where}.{key}: only in {'new' if key in after else 'base'}"
            if before[key] != after[key]:
                return parting(before[key], after[key], f"{where}.{key}")
    if isinstance(before, bytes | list) and isinstance(after, bytes | list):
        if len(before) != len(after):
            return f"{where} {len(before)} became {len(after)} long"
        place = first_apart(before, after)
        return parting(before[place], after[place], f"{where}[{place}]")
    place = first_apart(str(before), str(after))
    shown = slice(max(0, place - 20), place + 50)
    return f"{where}: {str(before)[shown]!r} became {str(after)[shown]!r}"


def first_apart(before: Sequence[Any], after: Sequence[Any]) -> int:
    """Return the first place at which two sequences differ; the shorter one's length if it has none."""
    pairs = zip(before, after, strict=False)
    return next((at for at, pair in enumerate(pairs) if pair[0] != pair[1]), min(len(before), len(after)))
