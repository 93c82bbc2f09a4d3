"""Export formats by name, one row in one file each: what a format holds, and how it is written and checked.

The table stands with the verb and not in the room `export/`: that room writes tensors and metadata, and a
format here also opens what was written, runs it and compares it, which takes other rooms. A row imports what
it needs in its functions, so that reading the table for a help text costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur.core.progress import Progress
from secateur_runtime.errors import UsageError, nearest
from secateur_runtime.registry import Table

if TYPE_CHECKING:
    from secateur.model.handle import ModelHandle

DEFAULT = "gguf"
"""The format where none is named, and no other has the type."""
USUAL = "auto"
"""The type that a format chooses by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """One export.

    src: the model. out: file or folder to write. type: of most weights, one of the format's or `auto`.
    group: inputs that share a scale; 0: as usual in the format.
    verify: False leaves the comparison out, in formats that can.
    """

    src: str
    out: Path
    type: str
    progress: Progress
    group: int = 0
    verify: bool = True
    overwrite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What an export wrote.

    bytes: of the weights, or of the file. facts: what the command prints, in order, `type` and `bytes` among
    them. figures: what the report of a recipe has besides `type` and `bytes`. notes: what a user should know.
    verified: what was written was loaded and compared.
    """

    out: Path
    type: str
    bytes: int
    facts: Mapping[str, Any]
    figures: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    verified: bool = True


@dataclass(frozen=True, slots=True)
class StoredBits:
    """Bits that a parameter takes on average: one inside the blocks, one outside."""

    inside: float
    outside: float


@dataclass(frozen=True, slots=True)
class AdvisedType:
    """What `advise` weighs a type by.

    perplexity: expected factor on it, rounded to nearest. bits: `--bits` of a `quantize` that should come
    before the export; 0: none.
    """

    perplexity: float
    bits: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvisedFormat:
    """What `advise` must know of a format to weigh it.

    types: the types that it weighs, the largest first.
    nbytes: shape of a tensor, number of elements that are left of it, type, and whether it is the output
    matrix -> bytes.
    holds: whether a tensor of such a shape can be stored as a type.
    overhead: bytes of tokenizer and settings.
    backend: `--backend` of `bench` that times the result; empty: none does.
    """

    types: Mapping[str, AdvisedType]
    nbytes: Callable[[tuple[int, ...], int, str, bool], int]
    holds: Callable[[tuple[int, ...], str], bool]
    overhead: Callable[[ModelHandle], int]
    backend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exporter:
    """One export format.

    name: what `--format` takes. about: what it writes, for help texts.
    runtime: what loads the result, for messages.
    types: what `--type` takes; `auto` is taken by every format.
    suffix: of the file that it writes; empty where it writes a folder.
    package, extra: package that its check needs, and the extra of `secateur` that brings it; or empty.
    grouped: the types whose scales `--group` changes.
    bits: what an average parameter takes, from the type, the bits that the weights of the blocks have before,
    and the share of them that is zero.
    write: writes and loads and compares; nothing is left in place of a result that does not match.
    advised: what `advise` weighs the format by; None: it does not.
    """

    name: str
    about: str
    runtime: str
    types: tuple[str, ...]
    bits: Callable[[str, float, float], StoredBits]
    write: Callable[[ExportRequest], ExportResult]
    suffix: str = ""
    package: str = ""
    extra: str = ""
    grouped: tuple[str, ...] = ()
    advised: AdvisedFormat | None = None

    def check_output(self, out: Path) -> None:
        """Raise UsageError if the format writes a file and `out` does not have its suffix."""
        if self.suffix and out.suffix != self.suffix:
            raise UsageError(f"{out} does not end in {self.suffix}: give --output the name of such a file")


EXPORTERS: Table[Exporter] = Table("--format", "secateur.pipeline.export.formats", "secateur.exporters")


def add_exporter(exporter: Exporter) -> Exporter:
    """Enter a row of the table and return it; raises UsageError for a name that is taken."""
    return EXPORTERS.add(exporter.name, exporter)


def exporter_for(name: str, kind: str) -> Exporter:
    """Return the format called `name`; in place of the default one, that which has the type `kind`.

    Raises UsageError for an unknown format, or a type that it does not have.
    """
    exporter = EXPORTERS[name]
    if kind in (USUAL, *exporter.types):
        return exporter
    other = _with_type(kind) if name == DEFAULT else None
    if other:
        return other
    known = (USUAL, *(_all_types() if name == DEFAULT else exporter.types))
    raise UsageError(f"unknown --type {kind!r}{nearest(kind, known)}; known: {', '.join(known)}")


def exporter_named(said: str) -> tuple[Exporter, str]:
    """Return the format and the type that one word means: a format with its usual type, or a type.

    Raises UsageError for another word.
    """
    if said in EXPORTERS:
        return EXPORTERS[said], USUAL
    other = _with_type(said)
    if other is None:
        known = (*EXPORTERS, *_all_types())
        raise UsageError(f"unknown --export {said!r}{nearest(said, known)}; known: {', '.join(known)}")
    return other, said


def _with_type(kind: str) -> Exporter | None:
    """Return the format that has a type; the default one where several have it."""
    names = (DEFAULT, *(name for name in EXPORTERS if name != DEFAULT))
    return next((EXPORTERS[name] for name in names if kind in EXPORTERS[name].types), None)


def _all_types() -> tuple[str, ...]:
    return tuple(dict.fromkeys(kind for name in EXPORTERS for kind in EXPORTERS[name].types))
