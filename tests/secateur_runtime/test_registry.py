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
        "from secateur_runtime.registry import Registry\n"
        f"METHODS = Registry('method', '{package}', 'tests.{package}', needs={{'gram'}})\n"
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
    with pytest.raises(UsageError, match="method 'first' is registered twice"):
        methods.register("first")(function)


def install(folder: Path, package: str, name: str, source: str) -> None:
    """Lay out an installed distribution `plug-NAME` whose module is the entry point `NAME`."""
    (folder / f"plug_{name}.py").write_text(source)
    info = folder / f"plug_{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: plug-{name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[tests.{package}]\n{name} = plug_{name}\n")


class TestPlugin:
    def test_is_found_by_its_entry_point(
        self, methods: Registry[Callable[..., object]], tmp_path: Path
    ) -> None:
        package = methods.group.removeprefix("tests.")
        install(tmp_path, package, "third", METHOD.format(package=package, name="third"))
        assert list(methods) == ["first", "second", "third"]
        assert [name for name, _ in methods.items()] == list(methods)
        assert len(methods) == 3
        assert methods["third"].summary == "Does third."

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("raise RuntimeError('no\\nluck')", r"plug-bad cannot be imported \(RuntimeError: no luck\)"),
            ("import no_such_module", r"plug-bad cannot be imported \(ModuleNotFoundError: "),
            ("x = 1", r"plug-bad has no method 'bad', which its entry point in tests\..* promises"),
            (
                METHOD.format(package="{package}", name="first"),
                r"method 'first' is registered twice.*plug-bad",
            ),
            (
                METHOD.format(package="{package}", name="bad").replace('{"gram"}', '{"grm"}'),
                r"method 'bad' of the plug-in plug-bad needs 'grm' \(did you mean gram\?\); known: gram",
            ),
        ],
    )
    def test_that_cannot_be_used_is_one_line_each_time(
        self,
        methods: Registry[Callable[..., object]],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        source: str,
        message: str,
    ) -> None:
        package = methods.group.removeprefix("tests.")
        install(tmp_path, package, "bad", source.replace("{package}", package))
        monkeypatch.delitem(sys.modules, "plug_bad", raising=False)
        for _ in range(2):
            with pytest.raises(UsageError, match=message) as raised:
                methods["first"]
            assert "\n" not in str(raised.value)
