"""The pages of the site: a page for each verb, with options, examples and messages as the code has them."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import shlex
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from tests.option_tables import PAGES, tables, verbs, with_tables

DOCS = PAGES.parent
SRC = DOCS.parent / "src"
MISSING = {
    *("run", "bench", "compare", "report", "card", "device", "advise", "serve"),
    *("adapt rank", "adapt price", "adapt train", "adapt simulate"),
}
"""Verbs that have no page yet. The set may only get shorter."""
VERB_PAGES = sorted(PAGES.glob("*.md"))
SITE = sorted({*DOCS.glob("*.md"), *(DOCS / "concepts").glob("*.md"), *VERB_PAGES})
EXAMPLES = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
MESSAGE = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)
"""The first cell of a row of `What can go wrong`; `...` stands for what differs from case to case."""


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _commands(text: str) -> list[list[str]]:
    """Return the words of each command line of `secateur` in the examples of a page."""
    lines = [line for block in EXAMPLES.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [found[1:] for found in words if found[:1] == ["secateur"]]


def _verb(words: list[str]) -> tuple[str, list[str]]:
    """Return the verb of a command line, and its arguments."""
    length = 2 if words[0] == "adapt" else 1
    return " ".join(words[:length]), words[length:]


@functools.cache
def _messages() -> str:
    """Return every string of the source: the constant parts of each message, one a line."""
    nodes = (node for path in SRC.rglob("*.py") for node in ast.walk(ast.parse(_read(path))))
    return "\n".join(
        node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def test_every_verb_has_a_page_with_its_options() -> None:
    listed = [verb for path in VERB_PAGES for verb in tables(_read(path))]
    assert sorted(listed) == sorted(set(verbs()) - MISSING)
    for path in VERB_PAGES:
        assert {verb.split()[0] for verb in tables(_read(path))} == {path.stem}


@pytest.mark.parametrize("path", VERB_PAGES, ids=lambda path: path.stem)
def test_a_page_lists_the_options_that_the_code_has(path: Path) -> None:
    assert _read(path) == with_tables(_read(path)), "run `python -m tests.option_tables`"


@pytest.mark.parametrize("path", VERB_PAGES, ids=lambda path: path.stem)
def test_a_page_has_an_example_of_each_of_its_verbs(path: Path) -> None:
    shown = {_verb(words)[0] for words in _commands(_read(path))}
    assert set(tables(_read(path))) <= shown


@pytest.mark.parametrize("path", SITE, ids=lambda path: str(path.relative_to(DOCS)))
def test_examples_are_commands_that_the_verbs_accept(path: Path) -> None:
    for words in _commands(_read(path)):
        verb, arguments = _verb(words)
        command = verbs()[verb]
        with command.make_context(verb, list(arguments)) as context:
            _check_groups(command, context.params)


def _check_groups(command: Any, given: dict[str, Any]) -> None:
    """Make the option groups of a verb, which raise for options that cannot work together."""
    verb = inspect.unwrap(command.callback)
    # Click says () where a repeatable option is not given, and typer then gives the verb None.
    values = {name: None if value == () else value for name, value in given.items()}
    for group in get_type_hints(verb, include_extras=True).values():
        if isinstance(group, type) and is_dataclass(group):
            group(**{field.name: values[field.name] for field in fields(group)})


@pytest.mark.parametrize("path", VERB_PAGES, ids=lambda path: path.stem)
def test_messages_are_those_of_the_code(path: Path) -> None:
    quoted = MESSAGE.findall(_read(path).partition("## What can go wrong")[2].partition("## Options")[0])
    assert quoted
    for message in quoted:
        for part in message.split("..."):
            assert part.strip() in _messages(), message
