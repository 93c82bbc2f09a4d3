"""lm-eval's task definitions, found by name and loaded with their data. Importing this needs lm-eval."""

from __future__ import annotations

import functools
import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import lm_eval.tasks
from lm_eval.tasks import TaskManager

from secateur_runtime.errors import MissingExtraError, SecateurError, TextError, UsageError, nearest

_FOLDER = Path(lm_eval.tasks.__file__).parent
_NO_DEFINITIONS = (".py", ".pyc", ".md", ".txt")
_NAME = re.compile(
    r"""^["']?(?:task|group|tag)["']?:[ \t]*["']?([^\n"'#\[]+?)["']?[ \t]*(?:#.*)?$""", re.MULTILINE
)
_TAGS = re.compile(r"""^["']?tag["']?:[^\n]*\n((?:[ \t]*-[^\n]*\n)+)""", re.MULTILINE)
_ITEM = re.compile(r"""-[ \t]*["']?([^\s"'#]+)""")


def load_tasks(names: Sequence[str], mirror: Path | None = None) -> dict[str, Any]:
    """Return the tasks and groups called `names` as lm-eval's evaluator wants them.

    mirror: folder laid out like the hub (`allenai/ai2_arc/...`) that holds the data; then nothing else is
    looked at.

    Raises UsageError for unknown names and for tasks that a model of log-probabilities cannot do, TextError
    for data that is missing, MissingExtraError for a package that a task needs.
    """
    if not names:
        raise UsageError("no task is named: give at least one, such as arc_easy")
    if mirror and not mirror.is_dir():
        raise TextError(
            f"{mirror} is no folder: --datasets takes one laid out like the hub (allenai/ai2_arc/...)"
        )
    manager = _manager(names)
    loaded: dict[str, Any] = {"tasks": {}, "groups": {}, "group_map": {}}
    for name in names:
        for part, found in _loaded(manager, name, mirror).items():
            loaded[part] |= found
    for name, task in loaded["tasks"].items():
        _check_kind(name, task)
    return loaded


def _is_definition(name: str) -> bool:
    return name.endswith(".yaml") and Path(name).is_file()


def _manager(names: Sequence[str]) -> Any:
    """Return a manager that knows the names; raises UsageError where lm-eval has none of that name.

    Indexing all of lm-eval's 14,000 definitions takes 15 s of parsing, so names are looked for in their text
    first. A plain task needs only its own folder; groups and tags may draw from anywhere and need the whole
    index.
    """
    known = _known()
    listed = [name for name in names if not _is_definition(name)]
    for name in listed:
        if name not in known:
            raise UsageError(
                f"unknown task {name!r}{nearest(name, known)}; `lm-eval ls tasks` lists them all"
            )
    with hushed():
        few = TaskManager(
            include_defaults=False, include_path=sorted({folder for name in listed for folder in known[name]})
        )
        return few if set(listed) <= set(few.all_subtasks) else TaskManager()


@functools.cache
def _known() -> dict[str, frozenset[Path]]:
    """Return the folders that mention each task, group and tag by name."""
    found = defaultdict(set)
    for path in _FOLDER.rglob("*"):
        if path.is_file() and path.suffix not in _NO_DEFINITIONS:
            text = path.read_text(encoding="utf-8", errors="replace")
            for name in [
                *_NAME.findall(text),
                *(name for block in _TAGS.findall(text) for name in _ITEM.findall(block)),
            ]:
                found[name].add(path.parent)
    return {name: frozenset(folders) for name, folders in found.items()}


def _loaded(manager: Any, name: str, mirror: Path | None) -> dict[str, Any]:
    seen: list[tuple[str, list[str]]] = []
    with hushed(), _reading(mirror, seen):
        try:
            made: dict[str, Any] = manager.load([name])
        except SecateurError:
            raise
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"task {name} needs a package of its own: pip install {error.name}"
            ) from None
        except KeyError as error:
            raise TextError(_without(name, str(error.args[0]), seen)) from None
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            raise TextError(_unread(name, error, seen)) from None
    return made


@contextmanager
def _reading(mirror: Path | None, seen: list[tuple[str, list[str]]]) -> Iterator[None]:
    """Have data sets read from `mirror` until exit, and note in `seen` each one and its splits."""
    real = datasets.load_dataset

    def load(path: str, name: str | None = None, **options: Any) -> Any:
        seen.append((path, []))
        here = mirror / path if mirror else None
        if here and not here.is_dir():
            raise TextError(
                f"{mirror} has no data set {path}: add it, or leave out --datasets to take it from the hub"
            )
        found = real(str(here or path), name, **options)
        seen[-1] = (path, list(found))
        return found

    with replaced(datasets, "load_dataset", load):
        yield


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give the attribute `name` of a module another value until exit."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _without(name: str, key: str, seen: Sequence[tuple[str, list[str]]]) -> str:
    path, splits = seen[-1] if seen else ("", [])
    if splits and key not in splits:
        return f"{path} has no split {key!r}, which task {name} reads; it has {', '.join(splits)}"
    return f"task {name} finds no {key!r} in the data of {path or 'its own'}"


def _unread(name: str, error: Exception, seen: Sequence[tuple[str, list[str]]]) -> str:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    path = seen[-1][0] if seen else "its data"
    return f"task {name}: cannot read {path} ({reason}); go online, or give --datasets a folder that holds it"


def _check_kind(name: str, task: Any) -> None:
    if task.OUTPUT_TYPE == "generate_until":
        raise UsageError(
            f"task {name} judges written answers: only tasks of log-probabilities are measured here"
        )
    if getattr(task, "MULTIMODAL", False):
        raise UsageError(f"task {name} shows pictures or sounds, and the model reads text only")
    if getattr(task, "UNSAFE_CODE", False):
        raise UsageError(f"task {name} runs code that a model wrote: that is not done here")


@contextmanager
def hushed() -> Iterator[None]:
    """Silence what lm-eval and the hub's client log while they look for what is not there."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "huggingface_hub", "datasets")]
    levels = [logger.level for logger in loggers]
    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()
