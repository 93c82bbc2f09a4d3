"""Files that exist whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from secateur.core.errors import OutputError


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError if something is there that must stay."""
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists: choose another --output, or pass --overwrite")


@contextmanager
def written_whole(path: Path, *, parents: bool = False) -> Iterator[Path]:
    """Give a file beside `path` to write, which becomes `path` at the end and goes if anything fails.

    parents: make the folders that lead to it. Raises OutputError where it cannot be written.
    """
    scratch = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        yield scratch
        scratch.replace(path)
    except BaseException as error:
        if path.parent.is_dir():
            scratch.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
        raise


def write_text(path: Path, text: str, *, parents: bool = False) -> None:
    """Write a text file as `written_whole` does."""
    with written_whole(path, parents=parents) as scratch:
        scratch.write_text(text, encoding="utf-8")
