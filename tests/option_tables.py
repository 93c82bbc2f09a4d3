"""Write the tables of options into the pages of verbs: `python -m tests.option_tables`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from secateur.cli import main
from secateur.cli.shared.method_lists import filled

PAGES = Path(__file__).parents[1] / "docs" / "verbs"
_BLOCK = re.compile(r"(<!-- options of `(?P<verb>[a-z ]+)` -->\n).*?(<!-- end of options -->)", re.DOTALL)
_HEAD = "| option | default | what it does |\n|-|-|-|\n"


def verbs() -> dict[str, Any]:
    """Return every verb, such as `prune` or `adapt rank`, and its command."""
    return dict(_verbs(typer.main.get_command(main.app), ""))


def with_tables(text: str) -> str:
    """Return the text of a page with each block of options as the code has it."""
    known = verbs()

    def written(found: re.Match[str]) -> str:
        rows = "".join(f"{_row(option)}\n" for option in known[found["verb"]].params)
        return f"{found[1]}\n{_HEAD}{rows}\n{found[3]}"

    return _BLOCK.sub(written, text)


def tables(text: str) -> list[str]:
    """Return the verbs whose options a page lists."""
    return [found["verb"] for found in _BLOCK.finditer(text)]


def _verbs(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield name, command
        return
    for part, inner in command.commands.items():
        yield from _verbs(inner, f"{name} {part}".strip())


def _row(option: Any) -> str:
    names = [*option.opts, *option.secondary_opts]
    if option.param_type_name == "argument":
        names = [option.make_metavar() if option.metavar is None else option.metavar]
    shown = ", ".join(f"`{name}`" for name in names)
    return f"| {shown} | {_default(option)} | {_cell(filled(option.help))} |"


def _default(option: Any) -> str:
    if option.required:
        return "required"
    if option.default is None or option.default is False or option.default == "":
        return ""
    if option.default is True:
        return "on"
    return f"`{option.default}`"


def _cell(text: str) -> str:
    """Return a help text as Markdown in a cell of a table; what is in backquotes is as it was."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([*|<\[])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


if __name__ == "__main__":
    for path in sorted(PAGES.glob("*.md")):
        path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
