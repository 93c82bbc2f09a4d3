"""Named methods: which criterion scores, which repair solves, and which weights compete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from secateur.core.errors import UsageError, nearest
from secateur.core.pattern import Scope


@dataclass(frozen=True, slots=True)
class Method:
    """One row of the table.

    criterion: name of the criterion, or None where the repair chooses what to prune.
    repair: name of the repair.
    scope: which weights compete.
    """

    criterion: str | None
    repair: str
    scope: Scope


METHODS: Mapping[str, Method] = {
    "random": Method("random", "none", "row"),
    "magnitude": Method("magnitude", "none", "tensor"),
    "wanda": Method("wanda", "none", "row"),
    "ria": Method("ria", "none", "tensor"),
    "sparsegpt": Method(None, "obs", "tensor"),
    "alps": Method(None, "admm", "tensor"),
}


def method(name: str) -> Method:
    """Return the method called `name`; raises UsageError for an unknown one."""
    if name not in METHODS:
        raise UsageError(f"unknown method {name!r}{nearest(name, METHODS)}; known: {', '.join(METHODS)}")
    return METHODS[name]
