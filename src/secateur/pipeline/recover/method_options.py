"""The options of a recovery method by its name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from secateur.pipeline.recover.distill import Distill
from secateur.pipeline.recover.methods import RECOVERIES


def options_kind(method: str) -> tuple[type[Any], dict[str, Any]]:
    """Return the dataclass of a method's options, and the fields that the name decides.

    Raises UsageError for an unknown method.
    """
    row = RECOVERIES[method]
    return (Distill, {"trains": row.trains}) if row.kind is None else (row.kind, {})


def methods_with(option: str) -> list[str]:
    """Return the names of the methods that take an option of the command line, such as `rank`."""
    own = {name for name, row in RECOVERIES.items() if option in row.options}
    if own:
        return sorted(own)
    return [name for name in RECOVERIES if option in {field.name for field in fields(options_kind(name)[0])}]
