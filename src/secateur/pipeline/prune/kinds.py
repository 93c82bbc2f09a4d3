"""Kinds of pruning: what can go from a model, and what decides which of it goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from secateur_runtime.errors import UsageError
from secateur_runtime.registry import Table

if TYPE_CHECKING:
    from secateur.calibrate.calibration import Calibration
    from secateur.core.context import RunContext
    from secateur.core.estimated_size import EstimatedSize
    from secateur.core.graph import Graph
    from secateur.core.plan import Plan
    from secateur.model.handle import ModelHandle


class Goal(Protocol):
    """What should go: a frozen dataclass of options, such as `Width`.

    A field that is named like an option of `secateur prune` takes the value of that option. Recipes and
    comparisons take every field by its name.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def check(self) -> None:
        """Raise UsageError for options that cannot work, or not together, with any model."""


Decide = Callable[["ModelHandle", Any, "Calibration", "RunContext"], "Plan"]
"""Returns the plan that meets a goal; raises SecateurError for a goal that this model cannot meet."""

Estimate = Callable[[Any, "EstimatedSize", "Graph"], "EstimatedSize"]
"""Returns the size that a goal leaves, without reading a weight."""

D = TypeVar("D", bound=Callable[..., Any])
WEIGHTS = "weights"
"""The kind of every method that prunes weight by weight."""
AUTO = "auto"
"""The kind that a target means where no method is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningKind:
    """One kind of pruning.

    summary: what it does, in one line.
    goal: dataclass of its options, as `Goal` has them.
    estimate: what a goal leaves, for `secateur run --dry-run`.
    passes: forward passes over the calibration text that it takes, for the same; 0 where the text is counted
    and not run.
    changes_tokens: the model reads other tokens afterwards, so it must come before all other changes.
    """

    name: str
    summary: str
    goal: type[Goal]
    decide: Decide
    estimate: Estimate
    passes: float
    changes_tokens: bool = False
    paper: str = ""

    @property
    def options(self) -> frozenset[str]:
        """Names of the fields of its goal."""
        return frozenset(field.name for field in fields(self.goal))


PRUNINGS: Table[PruningKind] = Table(
    "kind of pruning",
    (
        "secateur.pipeline.prune.weights.decide",
        "secateur.pipeline.prune.width.decide",
        "secateur.pipeline.prune.depth.decide",
        "secateur.pipeline.prune.vocabulary",
        "secateur.pipeline.prune.auto.decide",
    ),
    "secateur.prunings",
)


def pruning(
    name: str,
    *,
    goal: type[Goal],
    estimate: Estimate,
    passes: float,
    changes_tokens: bool = False,
    paper: str = "",
) -> Callable[[D], D]:
    """Return a decorator that registers what decides a kind of pruning.

    The parameters are the fields of `PruningKind`; the summary is the first line of the docstring.
    """

    def record(decide: D) -> D:
        summary = (decide.__doc__ or "").strip().partition("\n")[0]
        PRUNINGS.add(
            name,
            PruningKind(
                name=name,
                summary=summary,
                goal=goal,
                decide=decide,
                estimate=estimate,
                passes=passes,
                changes_tokens=changes_tokens,
                paper=paper,
            ),
        )
        return decide

    return record


def kind_called(method: str, *, targeted: bool) -> str:
    """Return the kind of pruning that a method means; no kind is imported for it.

    targeted: whether a target is given, with which `auto` means the kind `auto`, and weights without.
    """
    if method == AUTO:
        return AUTO if targeted else WEIGHTS
    return method if method in PRUNINGS.summaries() else WEIGHTS


def kind_of(goal: Goal) -> PruningKind:
    """Return the kind of a goal; raises UsageError for an object that is none."""
    found = [kind for name in PRUNINGS if isinstance(goal, (kind := PRUNINGS[name]).goal)]
    if found:
        return found[0]
    raise UsageError(f"a {type(goal).__name__} is no goal of pruning; known: {', '.join(PRUNINGS)}")
