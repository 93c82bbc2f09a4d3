"""llama.cpp in this process."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import pytest


class _Here:
    """Stands for a backend in a process of its own, which takes ten times as long to start as to check."""

    def __init__(self, name: str, factory: str, options: Mapping[str, Any]) -> None:
        module, _, function = factory.partition(":")
        self.name = name
        self._backend = getattr(importlib.import_module(module), function)(**options)

    def __enter__(self) -> _Here:
        return self

    def __exit__(self, *error: object) -> None:
        del self._backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have files checked by llama.cpp in this process; other tests, of failures above all, start another."""
    monkeypatch.setattr("secateur.pipeline.export.gguf_check.Isolated", _Here)
