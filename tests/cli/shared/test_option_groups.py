"""A group's fields are a verb's options, in the group's place, and the verb gets them as one object."""

from __future__ import annotations

import inspect
import json
import sys
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from secateur.cli.shared.option_groups import (
    CalibrationOptions,
    DisplayOptions,
    StorageOptions,
    arithmetic_of,
    with_options,
)
from secateur_runtime.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Two lengths; raises UsageError for a square."""

    width: Annotated[int, typer.Option("--width", min=1, help="Columns.")]
    height: Annotated[int, typer.Option("--height", help="Rows.")] = 3

    def __post_init__(self) -> None:
        if self.width == self.height:
            raise UsageError("--width and --height are equal")


@dataclass(frozen=True, slots=True, kw_only=True)
class TallSides(Sides):
    """The same with another default and one more."""

    height: Annotated[int, typer.Option("--height", help="Many rows.")] = 9
    depth: Annotated[int, typer.Option("--depth")] = 1


@with_options
def area(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    sides: Sides,
    unit: Annotated[str, typer.Option("--unit")] = "m2",
    display: DisplayOptions,
) -> None:
    """Multiply."""
    print(json.dumps([name, sides.width * sides.height, unit, display.as_json]))


@with_options
def volume(*, sides: TallSides) -> None:
    """Multiply."""
    print(json.dumps([sides.width, sides.height, sides.depth]))


app = typer.Typer(rich_markup_mode=None)
app.command("area")(area)
app.command("volume")(volume)


def _run(*arguments: str) -> list[object]:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found: list[object] = json.loads(done.stdout)
    return found


def test_a_group_takes_the_place_of_its_parameter() -> None:
    parameters = inspect.signature(area).parameters
    assert list(parameters) == ["name", "width", "height", "unit", "as_json", "quiet"]
    assert parameters["width"].default is inspect.Parameter.empty
    assert parameters["height"].default == 3


def test_the_verb_gets_instances() -> None:
    assert _run("area", "a", "--width", "2") == ["a", 6, "m2", False]
    assert _run("area", "a", "--width", "2", "--height", "5", "--unit", "ft2", "--json") == [
        "a",
        10,
        "ft2",
        True,
    ]


def test_an_inherited_field_keeps_its_place_with_the_default_of_the_heir() -> None:
    assert list(inspect.signature(volume).parameters) == ["width", "height", "depth"]
    assert _run("volume", "--width", "2") == [2, 9, 1]


def test_what_typer_checks_is_still_checked() -> None:
    for arguments, message in (
        (["area", "a"], "Missing option"),
        (["area", "a", "--width", "0"], "greater than or equal to 1"),
    ):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 2
        assert message in done.output


def test_a_group_refuses_before_the_verb_runs() -> None:
    with pytest.raises(UsageError, match="are equal"):
        area(name="a", width=3, height=3, unit="", as_json=False, quiet=False)


def test_two_options_of_one_name_are_refused() -> None:
    def twice(*, one: Sides, height: Annotated[int, typer.Option("--height")] = 1) -> None: ...

    # Annotations of a function in a function name what its globals do not hold.
    twice.__annotations__ = {"one": Sides, "height": int, "return": None}
    with pytest.raises(TypeError, match="twice has two options of one name: height"):
        with_options(twice)


def test_groups_have_the_defaults_of_what_they_make() -> None:
    from secateur.calibrate.calibration import Calibration
    from secateur.core.context import Settings

    assert CalibrationOptions().calibration() == Calibration(text="builtin", samples=64, window=512)
    assert CalibrationOptions(calib="self", samples=2, calib_window=8).calibration() == Calibration(
        text="self", samples=2, window=8
    )
    assert StorageOptions().settings() == Settings()
    made = StorageOptions(dtype="float16", compute="bfloat16", memory=3, overwrite=True).settings()
    assert made == Settings(dtype="float16", arithmetic="bfloat16", memory=3 * 2**20, overwrite=True)


def test_an_unknown_arithmetic_is_one_line() -> None:
    assert [arithmetic_of(name) for name in ("float32", "bfloat16")] == ["float32", "bfloat16"]
    with pytest.raises(UsageError, match=r"unknown --compute 'bfloat61' \(did you mean bfloat16\?\)"):
        arithmetic_of("bfloat61")


def test_display_is_quiet_for_json_even_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    display = DisplayOptions(as_json=True)
    with display.progress() as progress:
        progress.note("not shown")
    display.result({"b": 1.5, "a": "x"}, title="not shown")
    output = capsys.readouterr()
    assert (json.loads(output.out), output.err) == ({"a": "x", "b": 1.5}, "")
