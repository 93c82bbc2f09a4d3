"""The registry: methods by name, loaded from a package on first use."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from secateur_runtime.errors import UsageError
from secateur_runtime.registry import Registry

METHOD = """
import {package}

@{package}.METHODS.register("{name}", needs={{"gram"}}, paper="arXiv:0")
def {name}():
    '''Does {name}.

    In detail.
    '''
"""


@pytest.fixture
def methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry[Callable[..., object]]:
    """The registry of a package of two files."""
    package = f"methods_{abs(hash(tmp_path))}"
    folder = tmp_path / package
    folder.mkdir()
    (folder / "__init__.py").write_text(
        f"from secateur_runtime.registry import Registry\nMETHODS = Registry('method', '{package}')\n"
    )
    for name in ("second", "first"):
        (folder / f"{name}.py").write_text(METHOD.format(package=package, name=name))
    monkeypatch.syspath_prepend(str(tmp_path))
    found: Registry[Callable[..., object]] = __import__(package).METHODS
    assert f"{package}.first" not in sys.modules, "modules are imported on first use only"
    return found


def test_the_modules_of_a_package_are_found_in_order(methods: Registry[Callable[..., object]]) -> None:
    assert list(methods) == ["first", "second"]
    entry = methods["second"]
    assert (entry.summary, entry.needs, entry.paper) == ("Does second.", frozenset({"gram"}), "arXiv:0")
    assert "second" in methods


def test_an_unknown_name_is_one_line_with_the_nearest(methods: Registry[Callable[..., object]]) -> None:
    with pytest.raises(
        UsageError, match=r"unknown method 'frist' \(did you mean first\?\); known: first, sec"
    ):
        methods["frist"]


def test_a_name_cannot_be_registered_twice(methods: Registry[Callable[..., object]]) -> None:
    function = methods["first"].function
    with pytest.raises(ValueError, match="method 'first' is registered twice"):
        methods.register("first")(function)
