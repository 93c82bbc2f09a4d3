"""Register the types of unequal blocks with transformers, imported before or after this package.

Importing transformers takes seconds, and registering the types needs it. So nothing is imported here: once
the module of `AutoConfig`, through which every model is loaded, is there, its first `from_pretrained`
registers them. The import is watched because transformers asks no installed package for its types: without
it, `from_pretrained` would refuse such a folder unless its user also called something of ours.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_AUTO = "transformers.models.auto.configuration_auto"


def announce() -> None:
    """Make transformers know our types when it first loads a model."""
    if _AUTO in sys.modules:
        _register_at_first_use(sys.modules[_AUTO])
    else:
        sys.meta_path.insert(0, _Watch())


def _register_at_first_use(module: Any) -> None:
    """Register the types at the first use: before, the circular imports of transformers may be unfinished."""
    auto = module.AutoConfig
    whole = vars(auto)["from_pretrained"]

    def from_pretrained(cls: Any, *given: Any, **named: Any) -> Any:
        from secateur.model.unequal_blocks import register

        auto.from_pretrained = whole
        register()
        return cls.from_pretrained(*given, **named)

    auto.from_pretrained = classmethod(from_pretrained)


class _Watch(MetaPathFinder):
    """A finder that finds nothing itself; it notices when the module is imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _AUTO:
            return None
        sys.meta_path.remove(self)
        found = (finder.find_spec(fullname, path, target) for finder in sys.meta_path)
        spec = next((spec for spec in found if spec), None)
        if spec and spec.loader:
            spec.loader = _Then(spec.loader)
        return spec


class _Then(Loader):
    """The loader of the module, which prepares the registration afterwards."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # Whoever looks at the module later finds its own loader.
        module.__loader__ = self._loader
        if module.__spec__:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _register_at_first_use(module)
