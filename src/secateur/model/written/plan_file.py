"""TODO docstring."""

from __future__ import annotations

from pathlib import Path

from secateur.core.plan import Plan
from secateur.model.handle import ModelHandle
from secateur_runtime.errors import PlanError


def plan_beside(ref: str) -> Plan | None:
    """Return the plan that lies beside a model's weights, or None; raises PlanError if it is damaged."""
    path = Path(ref).expanduser() / "plan.json"
    if not path.is_file():
        return None
    try:
        return Plan.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"cannot read {path}: {error}") from None


def plan_digest(model: ModelHandle) -> str:
    """Return the digest of the plan beside the weights, or nothing where there is none."""
    path = Path(model.source.ref) / "plan.json"
    return Plan.from_json(path.read_text(encoding="utf-8")).digest() if path.is_file() else ""
