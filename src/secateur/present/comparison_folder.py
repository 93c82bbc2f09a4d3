"""The folder of a comparison.

What was asked in `compare.json`, and for every row the parts that are finished, each a file of records.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from secateur_runtime.errors import RecordError
from secateur_runtime.files import write_text
from secateur_runtime.record import Record

VERSION = 1
JOB = "compare.json"
CELLS = "cells"
KINDS = ("dense", "quantized", "magnitude", "unstructured", "structured")
NATIVE = "native "
PARTS = ("pruned", "file", "quality", "tasks", "bias", "speed")
"""What there is to know of a row, each in a file of its own: a killed run repeats nothing that is finished.
"""


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One line of a comparison.

    method: as the user wrote it, `dense`, or a type of quantized weights, of a GGUF file or, after `NATIVE`,
    of the native backend.
    target: what it had to meet; empty for the whole model.
    kind: of `KINDS`.
    """

    method: str
    target: str
    kind: str

    @property
    def name(self) -> str:
        """Its name for people."""
        return f"{self.method} at {self.target}" if self.target else self.method

    @property
    def native(self) -> str:
        """The type of weights in which the whole model runs in the native backend and nowhere else.

        Empty for every other row.
        """
        return (
            self.method.removeprefix(NATIVE)
            if self.kind == "quantized" and self.method.startswith(NATIVE)
            else ""
        )

    @property
    def zeroed(self) -> bool:
        """Whether it removes single weights."""
        return self.kind in ("magnitude", "unstructured")

    @property
    def is_depth(self) -> bool:
        """Whether it removes whole blocks or sub-blocks."""
        return self.method.partition(":")[0] == "depth"

    @property
    def id(self) -> str:
        """A name for its folder."""
        plain = re.sub(r"[^\w.=+-]+", "_", self.name)
        return f"{plain[:60]}-{hashlib.sha256(self.name.encode()).hexdigest()[:6]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonJob:
    """What is compared: one model, one calibration, one protocol.

    ref: the model as the user named it; digest: of its weights. protocols: for each part, what its numbers
    hang on.
    """

    ref: str
    name: str
    digest: str
    parameters: int
    protocols: Mapping[str, Mapping[str, Any]]
    rows: tuple[ComparisonRow, ...]
    secateur: str = ""
    version: int = VERSION

    def write(self, folder: Path) -> None:
        """Write `compare.json`, whole or not at all."""
        write_json(folder / JOB, asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPart:
    """One finished part of a row.

    source: digest of the model that the whole comparison is about. removed: the share of its parameters that
    every block's attention and FFN lost.
    weights: digest of the weights that pruning wrote. notes: what a reader must know.
    """

    source: str
    weights: str = ""
    records: tuple[Record, ...] = ()
    removed: tuple[tuple[float, float], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cell:
    """A row with the parts that are finished; `failed` says in one line why there will be no more."""

    row: ComparisonRow
    parts: Mapping[str, RowPart] = field(default_factory=dict)
    failed: str = ""

    @property
    def records(self) -> dict[str, Record]:
        """Every number by name."""
        return {record.name: record for part in self.parts.values() for record in part.records}

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know."""
        return tuple(note for part in self.parts.values() for note in part.notes)

    @property
    def removed(self) -> tuple[tuple[float, float], ...]:
        """As in `RowPart`; empty where nothing was removed."""
        return self.parts["pruned"].removed if "pruned" in self.parts else ()

    def value(self, name: str) -> float | None:
        """Return a number, if it was measured."""
        found = self.records.get(name)
        return None if found is None else found.value


def cell_folder(folder: Path, row: ComparisonRow) -> Path:
    """Return where the parts of a row are."""
    return folder / CELLS / row.id


def read_job(folder: Path) -> ComparisonJob:
    """Return what a folder compares; raises RecordError if it is no comparison."""
    path = folder / JOB
    if not path.is_file():
        raise RecordError(
            f"{folder} holds no {JOB}: it is not the folder of a comparison; `secateur compare MODEL -o"
            f" {folder}` makes one"
        )
    body = _read_json(path)
    try:
        job = ComparisonJob(**{**body, "rows": tuple(ComparisonRow(**row) for row in body["rows"])})
        ours = (
            job.version == VERSION
            and {row.kind for row in job.rows} <= set(KINDS)
            and all(isinstance(one, dict) for one in job.protocols.values())
        )
    except (KeyError, TypeError, AttributeError):
        ours = False
    if not ours:
        raise RecordError(f"{path} is not what this secateur writes: it compares nothing")
    return job


def read_cells(folder: Path, job: ComparisonJob) -> list[Cell]:
    """Return every row with what is finished.

    Raises RecordError for records that are damaged or of something else.
    """
    known = {row.id for row in job.rows}
    strangers = sorted(path.name for path in (folder / CELLS).glob("*") if path.name not in known)
    if strangers:
        raise RecordError(
            f"{folder / CELLS / strangers[0]} belongs to no row of {JOB}: move it out of the way"
        )
    return [read_cell(folder, job, row) for row in job.rows]


def read_cell(folder: Path, job: ComparisonJob, row: ComparisonRow) -> Cell:
    """Return a row with what is finished; raises RecordError as `read_cells` does."""
    place = cell_folder(folder, row)
    found = {
        part: _read_part(place / f"{part}.json", job) for part in PARTS if (place / f"{part}.json").exists()
    }
    failure = place / "failed.json"
    return Cell(row, found, str(_read_json(failure).get("failed", "")) if failure.exists() else "")


def write_part(folder: Path, row: ComparisonRow, name: str, part: RowPart) -> None:
    """Write a finished part, whole or not at all, and forget an earlier failure."""
    place = cell_folder(folder, row)
    write_json(place / f"{name}.json", asdict(part))
    (place / "failed.json").unlink(missing_ok=True)


def write_json(path: Path, body: Mapping[str, Any]) -> None:
    """Write a JSON file so that it exists whole or not at all.

    Raises OutputError where nothing can be written.
    """
    write_text(path, json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False) + "\n", parents=True)


def _read_part(path: Path, job: ComparisonJob) -> RowPart:
    body = _read_json(path)
    try:
        records = tuple(Record.from_dict(one) for one in body["records"])
        removed = tuple((float(attn), float(ffn)) for attn, ffn in body["removed"])
        part = RowPart(
            source=str(body["source"]),
            weights=str(body.get("weights", "")),
            records=records,
            removed=removed,
            notes=tuple(map(str, body["notes"])),
        )
    except (KeyError, TypeError, ValueError, RecordError) as error:
        raise RecordError(
            f"{path} is damaged ({error}): delete it, and `secateur compare` measures it again"
        ) from None
    if part.source != job.digest:
        raise RecordError(
            f"{path} is about another model ({part.source[:19]}..., not {job.digest[:19]}...): it does not"
            " belong here"
        )
    return part


def _read_json(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(
            f"{path} is cut short or damaged ({error}): delete it, and `secateur compare` measures it again"
        ) from None
    if not isinstance(body, dict):
        raise RecordError(
            f"{path} is damaged (no JSON object): delete it, and `secateur compare` measures it again"
        )
    return body
