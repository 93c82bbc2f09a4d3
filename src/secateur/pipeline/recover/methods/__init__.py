"""Recovery methods, one per file: what is trained of a pruned model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

from secateur_runtime.errors import UsageError, nearest
from secateur_runtime.registry import Table

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.core.context import RunContext
    from secateur.core.graph import Graph
    from secateur.model.handle import ModelHandle
    from secateur.pipeline.recover.distill import Distill
    from secateur.pipeline.recover.training_run import RecoveryJob
    from secateur.pipeline.recover.weight_writer import Rewrite
    from secateur.train.learner import Learner
    from secateur_runtime.kernels.quantized import Codes


class RecoverOptions(Protocol):
    """The options of a recovery: a frozen dataclass such as `Distill`."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def method(self) -> str:
        """Name of the recovery method."""

    @property
    def samples(self) -> int:
        """Windows of text that it is made for."""

    @property
    def held(self) -> float:
        """Share of the windows that nothing is learned from."""

    def check(self) -> None:
        """Raise UsageError for values that cannot work."""


@dataclass(frozen=True, slots=True)
class LoadedStudent:
    """A student in memory, before anything of it is trained.

    model: of transformers. graph: names and shapes of its tensors.
    masks: weight name -> which of its elements may differ from zero; weights that it lacks have no zeros.
    codes: weight name -> its quantized values; empty unless the method trains quantized models.
    how: options of the training.
    """

    model: Any
    graph: Graph
    masks: Mapping[str, Tensor]
    codes: Mapping[str, Codes]
    how: Distill
    seed: int


class RecoveryPass(Protocol):
    """A training that a method does by itself."""

    def run(self, tokens: Tensor, context: RunContext) -> None:
        """Train, and write every shard.

        tokens: ids `[windows, length]`, the last windows held out.
        """

    def compare(self, tokens: Tensor) -> float:
        """Return how far what was written is from what was meant."""


MakeLearner: TypeAlias = "Callable[[LoadedStudent], Learner]"
"""Says which parameters of a whole model learn, and how they become stored weights."""

StartPass: TypeAlias = "Callable[[RecoveryJob, Rewrite], RecoveryPass]"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryMethod:
    """One recovery method.

    summary: what it trains, in one line.
    learner: makes what learns of a whole model; None for a method that trains in its own way, by `start`.
    kind: dataclass of the options of a method with `start`; the others have `Distill`.
    trains: its name in `Distill`.
    rate: highest learning rate unless the user gives one.
    options: options of the command line that are for it and its like alone, such as `rank`.
    packages: what must be installed, all part of the extra `recover`.
    quantized: whether it trains quantized models, and only these.
    bytes: memory for each weight: the weight, its gradient and moments.
    view: how it sees the student; None as it is.
    """

    name: str
    summary: str
    learner: MakeLearner | None = None
    start: StartPass | None = None
    kind: type[RecoverOptions] | None = None
    trains: str = ""
    rate: float = 5e-4
    options: frozenset[str] = frozenset()
    packages: tuple[str, ...] = ()
    quantized: bool = False
    bytes: int = 8
    view: Callable[[ModelHandle], ModelHandle] | None = None
    paper: str = ""


RECOVERIES: Table[RecoveryMethod] = Table(
    "recovery method", "secateur.pipeline.recover.methods", "secateur.recoveries"
)


def recovery(
    name: str, *, options: Sequence[str] = (), **fields: Any
) -> Callable[[MakeLearner], MakeLearner]:
    """Return a decorator that registers what makes the learner of a whole model.

    options, fields: of `RecoveryMethod`; the summary is the first line of the docstring.
    """

    def record(make: MakeLearner) -> MakeLearner:
        said = {"trains": name, "packages": ("accelerate",)} | fields
        row = RecoveryMethod(
            name=name, summary=_summary(make), learner=make, options=frozenset(options), **said
        )
        RECOVERIES.add(name, row)
        return make

    return record


def own_recovery(
    name: str, *, kind: type[RecoverOptions], rate: float, paper: str = ""
) -> Callable[[StartPass], StartPass]:
    """Return a decorator that registers what starts a training of a method's own.

    kind: dataclass of its options, as `RecoverOptions` has them.
    rate: default of its learning rate.
    """

    def record(start: StartPass) -> StartPass:
        row = RecoveryMethod(
            name=name, summary=_summary(start), start=start, kind=kind, rate=rate, paper=paper
        )
        RECOVERIES.add(name, row)
        return start

    return record


def method_training(trains: str) -> RecoveryMethod:
    """Return the method that `Distill` calls `trains`; raises UsageError for an unknown one."""
    found = {row.trains: row for _, row in RECOVERIES.items() if row.learner}
    if trains not in found:
        raise UsageError(f"unknown trains {trains!r}{nearest(trains, found)}; known: {', '.join(found)}")
    return found[trains]


def _summary(function: Callable[..., object]) -> str:
    return (function.__doc__ or "").strip().partition("\n")[0]
