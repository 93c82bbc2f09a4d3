"""Read the plan in a model folder: what was removed from the model, next to its weights."""

from __future__ import annotations

from secateur.core.folder_files import PLAN
from secateur.core.plan import Plan
from secateur.model.formats.open_source import local_path
from secateur.model.handle import ModelHandle
from secateur_runtime.errors import PlanError


def plan_beside(ref: str) -> Plan | None:
    """Return the plan in a model folder; None if there is none, or if `ref` is no folder.

    Raises PlanError if the file is damaged or cannot be read.
    """
    path = local_path(ref) / PLAN
    if not path.is_file():
        return None
    try:
        return Plan.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"cannot read {path}: {error}") from None


def plan_digest(model: ModelHandle) -> str:
    """Return the digest of the plan in the folder of `model`; empty if there is none.

    Raises PlanError as `plan_beside` does.
    """
    plan = plan_beside(model.source.ref)
    return plan.digest() if plan else ""
