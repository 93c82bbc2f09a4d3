"""Files that are written whole or not at all, and locked folders of unfinished work."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from secateur_runtime.errors import OutputError


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError if `path` exists and may not be overwritten."""
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists: choose another --output, or pass --overwrite")


@contextmanager
def written_whole(path: Path, *, parents: bool = False) -> Iterator[Path]:
    """Yield a scratch file next to `path`; it replaces `path` at the end and is deleted if anything fails.

    parents: create the folders that lead to it. Raises OutputError if it cannot be written.
    """
    scratch = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        yield scratch
        scratch.replace(path)
    # An interrupt too leaves no scratch file.
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


JOB = "job.json"
LOCK = "lock"


@contextmanager
def claimed(
    folder: Path, out: Path, job: Mapping[str, Any], *, overwrite: bool, keep: bool = False
) -> Iterator[None]:
    """Hold the folder of unfinished work on `out` for this process alone.

    If the same job was killed before, its folder is reused. An error removes the folder unless `keep`; a kill
    or an interrupt leaves it. Raises OutputError if nothing can be written, if another run holds the folder,
    or if it belongs to another job (unless `overwrite`).
    """
    with locked(folder, out):
        try:
            _claim(folder, job, overwrite=overwrite)
        except OSError as error:
            raise OutputError(f"cannot write {out}: {error.strerror or error}") from error
        try:
            yield
        except OSError as error:
            if not keep:
                shutil.rmtree(folder, ignore_errors=True)
            raise OutputError(f"cannot write {out}: {error.strerror or error}") from error
        # Whatever failed would fail again; a kill or an interrupt, which would not, is no Exception.
        except Exception:
            if not keep:
                shutil.rmtree(folder, ignore_errors=True)
            raise


def locked(folder: Path, out: Path) -> TextIO:
    """Return the lock of a folder, which is created if necessary; closing the file releases the lock.

    The system releases the lock of a process that was killed, so that an old lock file is in no one's way.
    Raises OutputError if another run that writes `out` holds it, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("w")
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A run that ended between the two calls took its lock file, or the whole folder, with it.
        if not os.path.samestat(os.fstat(lock.fileno()), (folder / LOCK).stat()):
            raise BlockingIOError
    except (BlockingIOError, FileNotFoundError):
        lock.close()
        raise OutputError(f"another run is writing {out}: wait for it to end") from None
    except OSError as error:
        lock.close()
        raise OutputError(f"cannot lock {folder}: {error.strerror or error}") from error
    return lock


def _claim(folder: Path, job: Mapping[str, Any], *, overwrite: bool) -> None:
    note = folder / JOB
    text = json.dumps(job, sort_keys=True)
    if note.exists() and note.read_text(encoding="utf-8") != text:
        if not overwrite:
            raise OutputError(
                f"{folder} holds an unfinished run with other settings: repeat its command to finish it, or"
                " pass --overwrite"
            )
        for stale in (each for each in folder.iterdir() if each.name != LOCK):
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
    note.write_text(text, encoding="utf-8")
