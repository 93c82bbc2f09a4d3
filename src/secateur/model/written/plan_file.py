"""Read the plan that lies next to a model's weights."""

from __future__ import annotations

from secateur.core.plan import Plan
from secateur.model.formats.open_source import local_path
from secateur.model.handle import ModelHandle
from secateur_runtime.errors import PlanError

PLAN = "plan.json"


def plan_beside(ref: str) -> Plan | None:
    """Return the plan next to the weights of the model `ref`, or None; raises PlanError if it is damaged."""
    path = local_path(ref) / PLAN
    if not path.is_file():
        return None
    try:
        return Plan.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"cannot read {path}: {error}") from None


def plan_digest(model: ModelHandle) -> str:
    """Return the digest of the plan next to the weights, or nothing; raises PlanError if it is damaged."""
    plan = plan_beside(model.source.ref)
    return "" if plan is None else plan.digest()
