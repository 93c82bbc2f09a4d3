"""From measured numbers to the card of the model they were measured on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from secateur.core.folder_files import CARD
from secateur.core.plan import Plan
from secateur.model.handle import open_model
from secateur.model.written.plan_file import plan_beside
from secateur.present.comparison_folder import read_cells, read_job
from secateur.present.model_index import results, with_results
from secateur_runtime.errors import OutputError, RecordError, UsageError
from secateur_runtime.files import write_text
from secateur_runtime.record import Record


@dataclass(frozen=True, slots=True)
class CardUpdate:
    """The card that was written, its records, and how many of them are in its metadata."""

    path: Path
    records: tuple[Record, ...]
    indexed: int


def card(
    src: str,
    *,
    compared: str | Path | None = None,
    files: Sequence[str | Path] = (),
    out: str | Path | None = None,
    overwrite: bool = False,
) -> CardUpdate:
    """Write what was measured of the model folder `src` into its card, with `model-index` metadata.

    The rest of the card stays as it is.

    compared: folder of a comparison one of whose rows has the very weights of `src`. files: what `eval
    --json` and `bench --json` printed.
    out: another file than `src/README.md`; replaced only with `overwrite`.
    Raises RecordError for numbers that are damaged, or of another model, UsageError if there are none,
    OutputError if the card cannot be written.
    """
    folder = Path(src).expanduser()
    if not folder.is_dir():
        raise UsageError(
            f"{src} is no folder: a card belongs to a model folder, such as `secateur prune` writes"
        )
    if not compared and not files:
        raise UsageError(
            "nothing was measured: give --compare DIR, or --records with what `secateur eval --json` printed"
        )
    place = Path(out) if out else folder / CARD
    if out and place.exists() and not overwrite:
        raise OutputError(f"{place} exists: add --overwrite to replace it")
    known = _Known(open_model(str(folder)).digest, plan_beside(str(folder)))
    found = [
        *(_of_row(Path(compared), known) if compared else ()),
        *(pair for file in files for pair in _of_file(Path(file), known)),
    ]
    ours = {record.name: record for record, own in found if own}
    if not ours:
        raise UsageError(
            f"there is no number of {src} in what was given, only of the model it was pruned from"
        )
    before = {record.name: record.value for record, own in found if not own}
    text = with_results(_read(folder / CARD), folder.resolve().name, list(ours.values()), before)
    write_text(place, text, parents=True)
    return CardUpdate(place, tuple(ours.values()), len(results(list(ours.values()))))


@dataclass(frozen=True, slots=True)
class _Known:
    digest: str
    plan: Plan | None

    def owns(self, record: Record) -> bool | None:
        """Whether a record is of this model, False for the model it was pruned from, None for any other."""
        if record.model == self.digest:
            return True
        return False if self.plan and record.model == self.plan.model and not record.plan else None


def _of_row(folder: Path, known: _Known) -> Iterator[tuple[Record, bool]]:
    cells = read_cells(folder, read_job(folder))
    row = next(
        (cell for cell in cells if "pruned" in cell.parts and cell.parts["pruned"].weights == known.digest),
        None,
    )
    if row is None:
        raise RecordError(
            f"{folder} has no row with these weights: `secateur apply` makes them from the plan.json of a"
            " row, or give another folder"
        )
    yield from ((record, True) for record in row.records.values())
    whole = next((cell for cell in cells if cell.row.kind == "dense" and cell is not row), None)
    if whole:
        yield from ((record, False) for record in whole.records.values())


def _of_file(path: Path, known: _Known) -> Iterator[tuple[Record, bool]]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        records = [Record.from_dict(one) for one in body["records"]]
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, RecursionError, RecordError) as error:
        raise RecordError(
            f"{path} is not what `secateur eval --json` or `bench --json` print ({error})"
        ) from None
    for record in records:
        own = known.owns(record)
        if own is None:
            raise RecordError(
                f"{path} holds {record.name} of another model ({record.model[:19]}...): measure this one"
            )
        yield record, own


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"cannot read {path}: {error}") from None
