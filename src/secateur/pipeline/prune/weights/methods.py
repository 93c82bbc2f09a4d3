"""Named methods of weight pruning: criterion, repair, which weights compete, how the budget is spread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from secateur.core.execution import CalibrationText, Execution
from secateur.core.pattern import Scope
from secateur.criteria import CRITERIA, default_scope
from secateur.transform.repair import REPAIRS, Repair
from secateur_runtime.errors import UsageError, nearest

if TYPE_CHECKING:
    from secateur.transform.mask import Scorer

SCOPES: Mapping[str, Scope] = {"row": "row", "tensor": "tensor"}


@dataclass(frozen=True, slots=True)
class WeightMethod:
    """One row of the table.

    criterion: name of the criterion, or None where the repair chooses what to prune.
    repair: name of the repair.
    scope: which weights compete.
    allocation: how a ratio is spread over tensors unless the user says otherwise.
    """

    criterion: str | None
    repair: str
    scope: Scope
    allocation: str = "uniform"

    @property
    def needs(self) -> frozenset[str]:
        """Which statistics of `LinearStats` criterion and repair read."""
        return REPAIRS[self.repair].needs | (
            CRITERIA[self.criterion].needs if self.criterion else frozenset()
        )

    @property
    def scorer(self) -> Scorer | None:
        """The function of the criterion."""
        return CRITERIA[self.criterion].function if self.criterion else None

    @property
    def solver(self) -> Repair:
        """The function of the repair."""
        return REPAIRS[self.repair].function

    def replaced(self, criterion: str | None, repair: str | None, scope: str | None) -> WeightMethod:
        """Return the method with the parts that are not None replaced.

        Raises UsageError for an unknown name.
        """
        changed: dict[str, Any] = {}
        if criterion:
            changed = {"criterion": criterion, "scope": default_scope(criterion)}
        if repair:
            changed["repair"] = REPAIRS[repair].name
        if scope:
            if scope not in SCOPES:
                raise UsageError(
                    f"unknown scope {scope!r}{nearest(scope, SCOPES)}; known: {', '.join(SCOPES)}"
                )
            changed["scope"] = SCOPES[scope]
        return replace(self, **changed)

    def execution(self, *, rotation: str, calibration: CalibrationText | None, seed: int) -> Execution:
        """Return how a plan of this method is carried out; the fields are those of `Execution`."""
        return Execution(
            criterion=self.criterion or "",
            weight_repair=self.repair,
            scope=self.scope,
            rotation=rotation,
            calibration=calibration,
            seed=seed,
        )

    def as_strings(self) -> dict[str, str]:
        """Return criterion, repair and scope as a plan records them."""
        return {"criterion": self.criterion or "", "repair": self.repair, "scope": self.scope}


METHODS: Mapping[str, WeightMethod] = {
    "sparsegpt": WeightMethod(None, "obs", "tensor"),
    "alps": WeightMethod(None, "admm", "tensor"),
}
"""Methods whose repair chooses; every criterion is a method too, in its own scope and without a repair."""

AUTO = "alps"
"""The best method by measurement; LOG.md links to the table."""


def weight_methods() -> dict[str, str]:
    """Return the names of all methods but `auto`, and what each does in one line; no method is imported."""
    repairs = REPAIRS.summaries()
    return CRITERIA.summaries() | {name: repairs[method.repair] for name, method in METHODS.items()}


def method_named(name: str) -> WeightMethod:
    """Return the method called `name` or `auto`; raises UsageError for an unknown one."""
    wanted = AUTO if name == "auto" else name
    if wanted in METHODS:
        return METHODS[wanted]
    if wanted in CRITERIA:
        return WeightMethod(wanted, "none", default_scope(wanted))
    known = ("auto", *weight_methods())
    raise UsageError(f"unknown method {name!r}{nearest(name, known)}; known: {', '.join(known)}")


def method_of(execution: Execution) -> WeightMethod:
    """Return the method that a plan is carried out with; raises UsageError if it names none that exists."""
    return WeightMethod(None, "none", "row").replaced(
        execution.criterion or None, execution.weight_repair, execution.scope
    )
