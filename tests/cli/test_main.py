"""The whole command: its verbs and their options, verbs one after another, and errors as exit codes."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.cli.command import SMALL, Secateur, json_of
from tests.conftest import Maker

from secateur.cli import main
from secateur_runtime.errors import ExitCode, UncheckedError, UsageError, VerificationError

OPTIONS = Path(__file__).with_name("options.txt")
"""Every verb with its options; `NAME=DEFAULT`, without a default where a value is required."""


def _written() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    verb = ""
    for line in OPTIONS.read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            found[verb] += line.split()
        else:
            verb = line
            found[verb] = []
    return {verb: sorted(words) for verb, words in found.items()}


def _offered(command: Any, name: str = "") -> dict[str, list[str]]:
    if hasattr(command, "commands"):
        return {
            verb: words
            for part, inner in command.commands.items()
            for verb, words in _offered(inner, f"{name} {part}".strip()).items()
        }
    words = []
    for option in command.params:
        names = "|".join([*option.opts, *option.secondary_opts])
        words.append(names if option.required else f"{names}={option.default}")
    return {name: sorted(words)}


def test_every_verb_has_the_options_and_defaults_that_it_is_known_for() -> None:
    """A changed name or default breaks scripts: change the list with it, and the changelog."""
    assert _offered(typer.main.get_command(main.app)) == _written()


def test_every_option_and_verb_has_a_help_text() -> None:
    def silent(command: Any, name: str) -> list[str]:
        if hasattr(command, "commands"):
            return [line for part, inner in command.commands.items() for line in silent(inner, part)]
        missing = [] if command.help else [name]
        return missing + [f"{name} {option.name}" for option in command.params if not option.help]

    assert silent(typer.main.get_command(main.app), "secateur") == []


def test_no_verb_takes_more_than_eight_arguments() -> None:
    groups = [main.app, *(group.typer_instance for group in main.app.registered_groups)]
    verbs = [command.callback for app in groups if app for command in app.registered_commands]
    assert len(verbs) > 20
    for verb in verbs:
        assert verb is not None
        inner = getattr(verb, "__wrapped__", verb)
        assert len(inspect.signature(inner).parameters) <= 8, inner.__name__


def test_prune_eval_verify_inspect(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    model, out = tiny("llama"), tmp_path / "out"
    pruned = json_of(
        secateur("prune", model, "-o", out, "--method", "wanda", "--sparsity", "0.5", *SMALL, "--json")
    )
    assert (pruned["sparsity"], pruned["criterion"], pruned["target"]) == (0.5, "wanda", "0.5")
    quality = json_of(secateur("eval", out, "--window", 64, "-n", 2, "--reference", model, "--json"))
    assert quality["kl"] > 0
    assert quality["tokens"] == 2 * 63
    assert json_of(secateur("verify", out, "--reference", model, "--json"))["verdict"] == "ok"
    assert json_of(secateur("inspect", out, "--json"))["sparsity_of_prunable"] == 0.5


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("no such thing"), 2, "error: no such thing\n"),
        (VerificationError("it differs"), 3, "error: it differs\n"),
        (UncheckedError("no runtime"), 4, "error: no runtime\n"),
        (KeyboardInterrupt(), 130, "interrupted: finished blocks are kept"),
        (BrokenPipeError(), 141, ""),
    ],
)
def test_errors_are_exit_codes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    line: str,
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(main, "app", fail)
    with pytest.raises(SystemExit) as stopped:
        main.run()
    output = capsys.readouterr()
    assert (stopped.value.code, output.out) == (code, "")
    assert output.err.startswith(line)
    assert output.err.count("\n") == (1 if line else 0)


def test_anything_else_is_a_bug_and_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(main, "app", fail)
    with pytest.raises(ZeroDivisionError):
        main.run()


def test_a_mistyped_option_is_a_usage_error(secateur: Secateur) -> None:
    code, out, error = secateur("prune", "model", "--sparsty", "0.5")
    assert (code, out) == (2, "")
    assert "--sparsty" in error
    assert "Traceback" not in error


def test_help_names_the_exit_codes(secateur: Secateur) -> None:
    code, out, _ = secateur("--help")
    words = " ".join(out.split())
    assert code == 0
    for number, meaning in (
        (0, "done and checked"),
        (2, "bad input"),
        (3, "checked and failed"),
        (4, "could not be checked"),
        (130, "interrupted"),
    ):
        assert f"{number} {meaning}" in words
        assert number in list(ExitCode)
