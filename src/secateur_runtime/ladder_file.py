"""Read a ladder from JSON and validate it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from secateur_runtime.errors import LadderError, nearest
from secateur_runtime.ladder import VERSION, Ladder, Rung, check_steps, step

_FIELDS = {"version", "model", "order", "whole", "rungs", "costs", "made_by"}
_COUNTS = ("weight_bytes", "kv_values", "flops")
_ROW = {"unit", "loss", *_COUNTS}
_GROUP_KINDS = ("kv", "ffn")


def read_ladder(path: Path) -> Ladder:
    """Return the ladder in a file.

    Raises LadderError with one line if the file is missing, cut short or not a ladder.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise LadderError(
            f"cannot read {path}: {error.strerror}; make a ladder with `secateur adapt rank MODEL -o"
            f" {path.name}`"
        ) from None
    except UnicodeDecodeError:
        raise LadderError(f"{path} is not a ladder: it is not text") from None
    try:
        return parse_ladder(text)
    except LadderError as error:
        raise LadderError(f"{path}: {error}") from None


def parse_ladder(text: str) -> Ladder:
    """Return the ladder that `Ladder.to_json` wrote; raises LadderError with one line for anything else."""
    body = _object(text)
    for key in body:
        if key not in _FIELDS:
            raise LadderError(f"ladder has an unknown key {key!r}{nearest(key, _FIELDS)}")
    if body.get("version") != VERSION or isinstance(body.get("version"), bool):
        raise LadderError(f"ladder version is {body.get('version')!r}; this secateur reads version {VERSION}")
    if not isinstance(body.get("model"), str):
        raise LadderError("ladder has no 'model' digest")
    made_by = body.get("made_by", {})
    if not isinstance(made_by, dict) or not all(isinstance(value, str) for value in made_by.values()):
        raise LadderError("ladder 'made_by' must map names to strings")
    rungs = body.get("rungs")
    if not isinstance(rungs, list):
        raise LadderError("ladder has no list of 'rungs'")
    ladder = Ladder(
        model=body["model"],
        order=_order(body),
        whole=_rung(body.get("whole")),
        rungs=tuple(map(_rung, rungs)),
        costs=_costs(body),
        made_by=made_by,
    )
    check_steps(ladder)
    _check_costs(ladder)
    return ladder


def _object(text: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LadderError(f"not a ladder, or half written: {error}") from None
    if not isinstance(body, dict):
        raise LadderError("not a ladder: not a JSON object")
    return body


def _order(body: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    value = body.get("order")
    if not isinstance(value, dict) or not value:
        raise LadderError("ladder has no 'order' of units")
    for name, units in value.items():
        index, _, kind = name.partition(".")
        if not (index.isascii() and index.isdecimal()) or kind not in _GROUP_KINDS:
            raise LadderError(f"ladder orders {name!r}: groups are such as '3.kv' and '3.ffn'")
        if (
            not isinstance(units, list)
            or not units
            or any(type(unit) is not int for unit in units)
            or sorted(units) != list(range(len(units)))
        ):
            raise LadderError(f"ladder order[{name!r}] must list every unit from 0 on once")
    return {name: tuple(units) for name, units in value.items()}


def _rung(row: Any) -> Rung:
    if not isinstance(row, dict) or row.keys() != _ROW:
        raise LadderError(f"ladder has a rung that is not {{{', '.join(sorted(_ROW))}}}: {str(row)[:60]}")
    if not isinstance(row["unit"], str):
        raise LadderError(f"ladder has a rung whose unit is {row['unit']!r}")
    if any(type(row[name]) is not int or row[name] < 0 for name in _COUNTS) or not _is_loss(row["loss"]):
        raise LadderError(
            f"ladder rung {row['unit']!r} needs a finite loss, and counts that are whole numbers"
        )
    return Rung(**row)


def _is_loss(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _costs(body: dict[str, Any]) -> tuple[dict[str, float], ...]:
    value = body.get("costs", [])
    if not isinstance(value, list) or not all(
        isinstance(row, dict) and all(map(_is_loss, row.values())) for row in value
    ):
        raise LadderError("ladder 'costs' must list, for each level, unit -> loss")
    return tuple({unit: float(loss) for unit, loss in row.items()} for row in value)


def _check_costs(ladder: Ladder) -> None:
    if len(ladder.costs) > len(ladder):
        raise LadderError(f"ladder has costs of {len(ladder.costs)} levels and {len(ladder)} levels")
    for level, row in enumerate(ladder.costs):
        kept = ladder.kept(level)
        for unit in row:
            step(unit, kept)
