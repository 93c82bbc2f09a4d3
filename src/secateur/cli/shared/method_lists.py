"""Lists of methods in help texts, read from the registries when a verb's own help is shown."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from typing import Any

from typer.core import TyperCommand, TyperOption

from secateur_runtime.registry import Table

REGISTRIES: Mapping[str, str] = {
    "prunings": "secateur.pipeline.prune.kinds:PRUNINGS",
    "criteria": "secateur.criteria:CRITERIA",
    "repairs": "secateur.transform.repair:REPAIRS",
    "allocations": "secateur.allocate:ALLOCATIONS",
    "unit_criteria": "secateur.criteria.units:UNIT_CRITERIA",
    "unit_repairs": "secateur.transform.unit_repair:UNIT_REPAIRS",
    "spreads": "secateur.allocate.units:SPREADS",
    "depth_criteria": "secateur.criteria.depth:DEPTH_CRITERIA",
    "quantizers": "secateur.quantizers:QUANTIZERS",
    "recoveries": "secateur.pipeline.recover.methods:RECOVERIES",
    "policies": "secateur_runtime.policies:POLICIES",
}
"""Word in a help text -> module and name of a registry. None of these modules imports anything heavy."""
_WORD = re.compile(r"\{(\w+)(:?)\}")


def registry(word: str) -> Table[Any]:
    """Return the registry that a help text calls `word`."""
    module, _, name = REGISTRIES[word].partition(":")
    found: Table[Any] = getattr(importlib.import_module(module), name)
    return found


def summaries(word: str) -> dict[str, str]:
    """Return the names of the methods that a help text calls `word`, and what each does in one line."""
    if word == "weight_methods":
        from secateur.pipeline.prune.weights.methods import weight_methods

        return weight_methods()
    if word == "other_kinds":
        from secateur.pipeline.prune.kinds import WEIGHTS

        return {name: line for name, line in summaries("prunings").items() if name != WEIGHTS}
    if word in ("exporters", "export_types"):
        from secateur.pipeline.export.formats import EXPORTERS

        rows = [EXPORTERS[name] for name in EXPORTERS]
        return {row.name: row.about if word == "exporters" else ", ".join(row.types) for row in rows}
    return registry(word).summaries()


def filled(text: str) -> str:
    """Return a help text with its methods: `{criteria}` are their names, `{criteria:}` what each does."""

    def listed(found: re.Match[str]) -> str:
        known = summaries(found[1])
        if found[2]:
            return "; ".join(f"{name}: {_inside(line)}" for name, line in known.items())
        return ", ".join(known)

    return _WORD.sub(listed, text)


def _inside(line: str) -> str:
    """Return a sentence as a part of another."""
    return line[:1].lower() + line[1:].removesuffix(".")


class Verb(TyperCommand):
    """A command whose help texts name methods."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help with the methods that are there now, plug-ins too."""
        for option in self.params:
            if isinstance(option, TyperOption) and option.help:
                option.help = filled(option.help)
        super().format_help(ctx, formatter)
