"""Registries of methods by name, for folders that hold one method per file."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from secateur_runtime.errors import UsageError, nearest

F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class Entry(Generic[F]):
    """A registered method: its function, the statistics it needs and the paper it comes from.

    trait: what methods of this kind say about themselves besides, such as the kinds of units that one can
    score; None for kinds that say nothing.
    """

    name: str
    function: F
    needs: frozenset[str]
    paper: str
    trait: Any = None

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (self.function.__doc__ or "").strip().partition("\n")[0]


class Registry(Generic[F]):
    """Methods of one kind by name; the modules of `package` are imported on first use."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._entries: dict[str, Entry[F]] = {}
        self._loaded = False

    def register(
        self, name: str, *, needs: frozenset[str] | set[str] = frozenset(), paper: str = "", trait: Any = None
    ) -> Callable[[F], F]:
        """Return a decorator that records a function under `name`, with the fields of its `Entry`."""

        def record(function: F) -> F:
            if name in self._entries:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._entries[name] = Entry(name, function, frozenset(needs), paper, trait)
            return function

        return record

    def __getitem__(self, name: str) -> Entry[F]:
        self._load()
        if name not in self._entries:
            raise UsageError(
                f"unknown {self.kind} {name!r}{nearest(name, self._entries)}; known:"
                f" {', '.join(sorted(self._entries))}"
            )
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._entries))

    def _load(self) -> None:
        if not self._loaded:
            self._loaded = True
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self._package}.{module.name}")
