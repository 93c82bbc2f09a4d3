"""A measured number as a record: value, unit, and everything needed to trace its origin."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from secateur_runtime.errors import RecordError

_PACKAGES = ("secateur", "torch", "transformers", "numpy")


def software() -> dict[str, str]:
    """Return the versions of the packages that decide a number."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        versions[name] = importlib.metadata.version(name)
    return versions


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One measured number.

    protocol: how it was measured, in words that another person can follow.
    model, plan: digests; `plan` is empty for an unpruned model.
    standard_error: in the same unit, where it is known.
    """

    name: str
    value: float
    unit: str
    protocol: str
    model: str
    plan: str = ""
    standard_error: float | None = None
    seed: int = 0
    software: Mapping[str, str] = field(default_factory=software)
    machine: str = field(default_factory=platform.machine)

    def as_dict(self) -> dict[str, Any]:
        """Return the record as plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, body: Any) -> Record:
        """Return what `as_dict` gave; raises RecordError for anything else."""
        known = {each.name for each in fields(cls)}
        if not isinstance(body, dict) or set(body) != known:
            wrong = sorted(known ^ set(body)) if isinstance(body, dict) else [repr(body)[:40]]
            raise RecordError(f"no record: {', '.join(wrong)} missing or not known")
        for name in ("name", "unit", "protocol", "model", "plan", "machine"):
            if not isinstance(body[name], str):
                raise RecordError(f"no record: {name} is {body[name]!r}, not text")
        if (
            isinstance(body["value"], bool)
            or not isinstance(body["value"], int | float)
            or not isinstance(body["software"], dict)
        ):
            raise RecordError(f"no record: {body['name']} holds no number, or no versions")
        return cls(**{**body, "value": float(body["value"])})
