"""Where the tool keeps what it makes once."""

from __future__ import annotations

from pathlib import Path

import pytest

from secateur_runtime.cache_folder import VARIABLE, cache_folder
from secateur_runtime.errors import OutputError


def test_the_own_variable_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/own-home")
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path("/own-home/.cache/secateur")
    monkeypatch.setenv("XDG_CACHE_HOME", "/shared")
    assert cache_folder() == Path("/shared/secateur")
    monkeypatch.setenv(VARIABLE, "/own")
    assert cache_folder() == Path("/own")


def test_no_home_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", _no_home)
    with pytest.raises(OutputError, match=f"^there is no home folder .*: set {VARIABLE}"):
        cache_folder()


def _no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")
