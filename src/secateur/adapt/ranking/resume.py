"""The progress of a ranking, saved after every step, so that a killed run can continue."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.adapt.ranking.greedy_search import Search
from secateur_runtime.errors import OutputError
from secateur_runtime.files import claimed, write_text
from secateur_runtime.ladder import Rung, as_row

Order = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The folder of one unfinished ranking."""

    folder: Path

    @property
    def weights(self) -> Path:
        """Path of the copy of the weights."""
        return self.folder / "weights.safetensors"

    def order(self, find: Callable[[], Order]) -> Order:
        """Return the saved order of the units, or find and save it."""
        path = self.folder / "order.json"
        if not path.exists():
            write_text(path, json.dumps(find()))
        return {group: tuple(units) for group, units in json.loads(path.read_text(encoding="utf-8")).items()}

    def keep(self, search: Search, rungs: Sequence[Rung]) -> None:
        """Save the progress of a search."""
        write_text(
            self.folder / "search.json",
            json.dumps({"rungs": [as_row(rung) for rung in rungs], "state": search.state()}),
        )

    def resume(self, search: Search) -> list[Rung]:
        """Bring a new search to the saved progress; return the rungs found before."""
        path = self.folder / "search.json"
        if not path.exists():
            return []
        kept: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        search.resume(kept["state"])
        return [Rung(**row) for row in kept["rungs"]]


@contextmanager
def unfinished(out: Path | None, job: Mapping[str, Any], *, overwrite: bool) -> Iterator[Unfinished]:
    """Yield the folder of an unfinished ladder, `OUT.partial`, or a temporary one without `out`.

    The folder is removed after success and after errors. Raises OutputError as `claimed` does.
    """
    if out is None:
        try:
            with tempfile.TemporaryDirectory() as scratch:
                yield Unfinished(Path(scratch))
        except OSError as error:
            raise OutputError(f"cannot write a copy of the weights: {error.strerror or error}") from error
        return
    folder = out.with_name(f"{out.name}.partial")
    with claimed(folder, out, job, overwrite=overwrite):
        yield Unfinished(folder)
        shutil.rmtree(folder)
