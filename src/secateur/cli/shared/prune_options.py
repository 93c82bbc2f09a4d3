"""The options that decide what is removed, which `plan` and `prune` share, and how they become a plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from secateur.cli.shared import options
from secateur_runtime.errors import UsageError

if TYPE_CHECKING:
    from secateur.calibrate.calibration import Calibration
    from secateur.pipeline.prune.kinds import Goal, PruningKind

_EVERY_KIND = ("method", "calib", "samples", "calib_window", "seed", "dtype")
"""Options that every kind of pruning takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneOptions:
    """The options that decide what is removed.

    Raises UsageError for options that cannot work, or not together, with any model.
    """

    method: options.Method = "auto"
    sparsity: options.Sparsity = None
    pattern: options.Pattern = None
    units: options.Units = None
    ratio: options.Ratio = None
    target: options.Target = None
    drop_layers: options.DropLayers = None
    sub_blocks: options.SubBlocks = False
    align: options.Align = 32
    uniform: options.Uniform = False
    layers: options.Layers = None
    keep_heads: options.KeepHeads = 1
    criterion: options.Criterion = None
    repair: options.Repair = None
    scope: options.Scope = None
    allocation: options.Allocation = None
    rotate: options.Rotate = ""
    calib: options.Calib = "builtin"
    samples: options.Samples = 64
    calib_window: options.CalibWindow = 512
    protect: options.Protect = None
    seed: options.Seed = 0
    dtype: options.Dtype = "auto"

    @property
    def kind(self) -> PruningKind:
        """What is removed."""
        from secateur.pipeline.prune.kinds import PRUNINGS, kind_called

        return PRUNINGS[kind_called(self.method, targeted=self.target is not None)]

    def __post_init__(self) -> None:
        if self.pattern is not None and ":" not in self.pattern:
            raise UsageError(f"pattern {self.pattern!r} is not N:M such as 2:4; a ratio goes to --sparsity")
        if self.sparsity is not None and ":" in self.sparsity:
            raise UsageError(f"sparsity {self.sparsity!r} is a pattern: give it to --pattern")
        kind = self.kind
        self._check_kind(kind)
        if "sparsity" in kind.options and (self.sparsity is None) == (self.pattern is None):
            raise UsageError("say how much to prune: either --sparsity 0.5 or --pattern 2:4")
        if not kind.passes and self.calib != "self" and {"samples", "calib_window"} & self._given():
            raise UsageError(
                f"--method {self.method} counts the tokens of the whole text: leave out --samples and"
                " --calib-window"
            )
        self.goal()

    def _given(self) -> set[str]:
        """Return the names of the options that differ from their default."""
        return {field.name for field in fields(self) if getattr(self, field.name) != field.default}

    def _check_kind(self, kind: PruningKind) -> None:
        """Raise UsageError for options of another kind of pruning."""
        from secateur.pipeline.prune.kinds import PRUNINGS, WEIGHTS

        for name in sorted(self._given() - kind.options - set(_EVERY_KIND)):
            field = "sparsity" if name == "pattern" else name
            if field in kind.options:
                continue
            methods = " and ".join(
                "of weights" if other == WEIGHTS else f"--method {other}"
                for other in PRUNINGS
                if field in PRUNINGS[other].options
            )
            raise UsageError(
                f"--{name.replace('_', '-')} belongs to pruning {methods}, not to --method {self.method}:"
                " leave it out"
            )

    def calibration(self) -> Calibration:
        """Return the calibration that these options ask for."""
        from secateur.calibrate.calibration import Calibration

        return Calibration(text=self.calib, samples=self.samples, window=self.calib_window)

    def goal(self) -> Goal:
        """Return what is to go; raises UsageError for options that cannot work with any model."""
        kind = self.kind
        given: dict[str, Any] = {name: getattr(self, name) for name in self._given() & kind.options}
        if self.pattern is not None:
            given["sparsity"] = self.pattern
        if self.target is not None:
            given["target"] = ",".join(self.target)
        if self.units is not None:
            given["units"] = tuple(unit.strip() for unit in self.units.split(","))
        make: Callable[..., Goal] = kind.goal
        goal = make(**given)
        goal.check()
        return goal
