"""What can be chosen by name: tables of rows and registries of methods, which plug-ins extend.

A plug-in is an installed distribution with an entry point in the table's group. Its value is a module;
importing that module adds the row that the entry point is named after:

    [project.entry-points."secateur.criteria"]
    mine = "my_package.mine"
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from secateur_runtime.errors import UsageError, nearest

F = TypeVar("F", bound=Callable[..., object])
T = TypeVar("T")


class Table(Generic[T]):
    """Rows of one kind by name.

    The modules of `package` are imported on first use, then those of installed plug-ins.

    kind: what a row is, for messages.
    package: dotted name of the package that holds one row per module, or the names of such modules.
    group: group of the entry points of plug-ins.
    """

    def __init__(self, kind: str, package: str | tuple[str, ...], group: str) -> None:
        self.kind = kind
        self.group = group
        self._package = package
        self._rows: dict[str, T] = {}
        self._owner = ""
        self._loaded = False

    def add(self, name: str, row: T) -> T:
        """Enter a row and return it; raises UsageError for a name that is taken."""
        if name in self._rows:
            owner = f", the second time by {self._owner}" if self._owner else ""
            raise UsageError(
                f"{self.kind} {name!r} is registered twice{owner}: rename it there or uninstall it"
            )
        self._rows[name] = row
        return row

    def __getitem__(self, name: str) -> T:
        """Return the row called `name`; raises UsageError that lists the names for an unknown one."""
        self._load()
        if name not in self._rows:
            raise UsageError(
                f"unknown {self.kind} {name!r}{nearest(name, self._rows)}; known:"
                f" {', '.join(sorted(self._rows))}"
            )
        return self._rows[name]

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._rows

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._rows))

    def __len__(self) -> int:
        self._load()
        return len(self._rows)

    def items(self) -> list[tuple[str, T]]:
        """Return names and rows, by name."""
        return [(name, self._rows[name]) for name in self]

    def summaries(self) -> dict[str, str]:
        """Return the names with the first line of each docstring, read from the source: nothing is imported.

        A row counts where a decorator with its name stands on a function or class. A plug-in's is not read.
        """
        found: dict[str, str] = {}
        for name in self._modules():
            found.update(_decorated(_source_of(name).read_text(encoding="utf-8")))
        plugins = {plugin.name: f"a plug-in: {_owner_of(plugin)}" for plugin in self._plugins()}
        return dict(sorted((plugins | found).items()))

    def _modules(self) -> tuple[str, ...]:
        if isinstance(self._package, tuple):
            return self._package
        package = importlib.import_module(self._package)
        return tuple(f"{self._package}.{found.name}" for found in pkgutil.iter_modules(package.__path__))

    def _plugins(self) -> list[EntryPoint]:
        return sorted(entry_points(group=self.group), key=lambda found: found.name)

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        try:
            for name in self._modules():
                importlib.import_module(name)
            for plugin in self._plugins():
                self._load_plugin(plugin)
        except UsageError:
            self._loaded = False
            raise

    def _load_plugin(self, plugin: EntryPoint) -> None:
        """Import one plug-in; raises UsageError if it cannot be used."""
        self._owner = f"the plug-in {_owner_of(plugin)}"
        try:
            plugin.load()
        except UsageError:
            raise
        # Code of others can fail in any way.
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UsageError(
                f"{self._owner} cannot be imported ({reason}): update or uninstall it"
            ) from error
        else:
            if plugin.name not in self._rows:
                raise UsageError(
                    f"{self._owner} has no {self.kind} {plugin.name!r}, which its entry point in {self.group}"
                    " promises: update or uninstall it"
                )
        finally:
            self._owner = ""


def _owner_of(plugin: EntryPoint) -> str:
    return plugin.dist.name if plugin.dist else plugin.value


def _source_of(module: str) -> Path:
    parent, _, stem = module.rpartition(".")
    (folder, *_) = importlib.import_module(parent).__path__
    path = Path(folder) / f"{stem}.py"
    return path if path.exists() else Path(folder) / stem / "__init__.py"


def _decorated(source: str) -> Iterator[tuple[str, str]]:
    """Yield name and first line of the docstring of what a decorator such as `@criterion("wanda")` enters."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            for mark in node.decorator_list:
                match mark:
                    case ast.Call(args=[ast.Constant(value=str(name)), *_]):
                        yield name, (ast.get_docstring(node) or "").partition("\n")[0]


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


class Registry(Table[Entry[F]], Generic[F]):
    """Methods of one kind by name: functions, entered by a decorator.

    kind, package, group: as for `Table`. needs: what a method may need.
    """

    def __init__(self, kind: str, package: str, group: str, *, needs: Collection[str] = ()) -> None:
        super().__init__(kind, package, group)
        self._needs = frozenset(needs)

    def register(
        self, name: str, *, needs: frozenset[str] | set[str] = frozenset(), paper: str = "", trait: Any = None
    ) -> Callable[[F], F]:
        """Return a decorator that records a function under `name`, with the fields of its `Entry`.

        Raises UsageError for something that no method of this kind can need.
        """
        for need in sorted(frozenset(needs) - self._needs):
            owner = f" of {self._owner}" if self._owner else ""
            raise UsageError(
                f"{self.kind} {name!r}{owner} needs {need!r}{nearest(need, self._needs)}; known:"
                f" {', '.join(sorted(self._needs))}"
            )

        def record(function: F) -> F:
            self.add(name, Entry(name, function, frozenset(needs), paper, trait))
            return function

        return record
