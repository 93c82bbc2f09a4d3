"""A ladder is data: the order in which parts of a model are removed, and what each level costs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from secateur_runtime.errors import LadderError, nearest
from secateur_runtime.files import refuse_existing, write_text

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One level of a ladder and the step that leads to it.

    unit: what the step removes: `7.attn` or `12.ffn` (a sub-block), `3.kv:2` (two key-value groups remain),
    `5.ffn:1152` (1152 neurons remain).
    loss: mean negative log likelihood on the ranking text at this level, nats per token.
    weight_bytes: bytes of all weights at this level.
    kv_values: numbers in the KV cache for each token of a sequence.
    flops: operations to decode one token, without attention to earlier tokens.
    """

    unit: str
    loss: float
    weight_bytes: int
    kv_values: int
    flops: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """Nested plans of one model: level 0 is the whole model, level `i` has the first `i` rungs applied.

    model: digest of the source weights.
    order: group (`3.kv`, `3.ffn`) -> all its units, retained longest first, so every level keeps a prefix.
    whole: level 0; its unit is empty.
    costs: at index `i` the losses measured at level `i`: unit -> loss if that unit were removed next. Index 0
    holds each unit on its own.
    made_by: text, criterion, seed and prices that decided.
    """

    model: str
    order: Mapping[str, tuple[int, ...]]
    whole: Rung
    rungs: tuple[Rung, ...]
    costs: tuple[Mapping[str, float], ...] = ()
    made_by: Mapping[str, str] = field(default_factory=dict)
    version: int = VERSION

    def __len__(self) -> int:
        """The number of levels, the whole model included."""
        return len(self.rungs) + 1

    @property
    def loss(self) -> float:
        """The loss of the whole model."""
        return self.whole.loss

    def at(self, level: int) -> Rung:
        """Return the rung of a level; raises LadderError if there is no such level."""
        if not 0 <= level < len(self):
            raise LadderError(
                f"no level {level}: this ladder has the levels 0 (the whole model) to {len(self.rungs)}"
            )
        return self.rungs[level - 1] if level else self.whole

    def kept(self, level: int) -> dict[str, int]:
        """Return how many units of each group a level keeps; 0 where the sub-block is removed.

        Raises LadderError if there is no such level.
        """
        self.at(level)
        return self.kept_without([rung.unit for rung in self.rungs[:level]])

    def kept_without(self, units: Iterable[str]) -> dict[str, int]:
        """Return how many units of each group remain after the given steps, which may be any subset.

        Raises LadderError for a step that is not in this ladder, or that needs an earlier step first.
        """
        wanted = set(units)
        found = {name: len(all_of_it) for name, all_of_it in self.order.items()}
        if strange := wanted.difference(rung.unit for rung in self.rungs):
            raise LadderError(
                "this ladder has no step"
                f" {min(strange)!r}{nearest(min(strange), [rung.unit for rung in self.rungs])}"
            )
        behind: dict[str, str] = {}
        for rung in self.rungs:
            group, count = step(rung.unit, found)
            if rung.unit not in wanted:
                behind.setdefault(group, rung.unit)
            elif group in behind:
                raise LadderError(
                    f"{rung.unit!r} cannot be removed without {behind[group]!r}, which this ladder"
                    " removes first"
                )
            else:
                found[group] = count
        return found

    def need(self, level: int, batch: int = 1, tokens: int = 0, kv_bytes: int = 4) -> int:
        """Return bytes of weights and KV cache at a level.

        batch: number of sequences. tokens: tokens of each sequence, those still to come included. kv_bytes:
        bytes of one number in the cache.
        """
        rung = self.at(level)
        return rung.weight_bytes + rung.kv_values * kv_bytes * batch * tokens

    def to_json(self) -> str:
        """Return the ladder as JSON with sorted keys, a line for each entry, and a final newline."""
        lines = [
            f'"costs": {_list(map(_json, self.costs))}',
            f'"made_by": {_json(self.made_by)}',
            f'"model": {_json(self.model)}',
        ]
        lines.append(
            '"order": {\n'
            + ",\n".join(f"{_json(name)}: {_json(units)}" for name, units in sorted(self.order.items()))
            + "}"
        )
        lines += [
            f'"rungs": {_list(_json(as_row(rung)) for rung in self.rungs)}',
            f'"version": {self.version}',
            f'"whole": {_json(as_row(self.whole))}',
        ]
        return "{" + ",\n".join(lines) + "}\n"

    def save(self, path: Path, *, overwrite: bool = False) -> None:
        """Write the ladder so that it exists whole or not at all.

        Raises OutputError if it cannot, or must not be, written.
        """
        refuse_existing(path, overwrite=overwrite)
        write_text(path, self.to_json())


def step(unit: str, kept: Mapping[str, int]) -> tuple[str, int]:
    """Return the group of a unit and how many units of it remain after the unit is removed.

    kept: units of each group now. Raises LadderError for a unit that is malformed or cannot be removed.
    """
    name, colon, width = unit.partition(":")
    index, _, part = name.partition(".")
    group = f"{index}.kv" if part in ("attn", "kv") else name
    narrows = bool(colon)
    known = group in kept and part in (("kv", "ffn") if narrows else ("attn", "ffn"))
    if not known or (narrows and not (width.isascii() and width.isdecimal())):
        raise LadderError(
            f"ladder takes {unit!r}, which is no unit of its model: units are such as '7.attn', '12.ffn',"
            " '3.kv:2', '5.ffn:1152'"
        )
    left = int(width or 0)
    if not narrows <= left < kept[group]:
        raise LadderError(f"ladder takes {unit!r} where {kept[group]} units of {group!r} are left")
    return group, left


def half_of(unit: str) -> str:
    """Return the sub-block that a group or a step belongs to, as `Plan.drop` names it.

    `5.ffn:1152` and `5.ffn` belong to `5.ffn`; `5.kv`, `5.kv:2` and `5.attn` belong to `5.attn`.
    """
    block, _, kind = unit.partition(".")
    return f"{block}.{'ffn' if kind.startswith('ffn') else 'attn'}"


def as_row(rung: Rung) -> dict[str, str | float | int]:
    """Return a rung as plain data."""
    return {
        "unit": rung.unit,
        "loss": rung.loss,
        "weight_bytes": rung.weight_bytes,
        "kv_values": rung.kv_values,
        "flops": rung.flops,
    }


def check_steps(ladder: Ladder) -> None:
    """Raise LadderError unless the rungs form a valid ladder.

    Every rung must be able to follow those before it, no level may grow, and the first and the last block
    keep both sub-blocks.
    """
    blocks = {int(group.partition(".")[0]) for group in ladder.order}
    outer = {f"{index}.{part}" for index in (min(blocks), max(blocks)) for part in ("attn", "ffn")}
    kept = ladder.kept(0)
    for rung in ladder.rungs:
        group, count = step(rung.unit, kept)
        kept[group] = count
        if rung.unit in outer:
            raise LadderError(
                f"ladder takes {rung.unit!r}: the first and the last block keep both sub-blocks"
            )
    for before, after in pairwise((ladder.whole, *ladder.rungs)):
        if (
            after.weight_bytes > before.weight_bytes
            or after.kv_values > before.kv_values
            or after.flops > before.flops
        ):
            raise LadderError(
                f"ladder grows at {after.unit!r}: every level must take at most what the one before takes"
            )


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _list(rows: Iterable[str]) -> str:
    return "[\n" + ",\n".join(rows) + "]"
