"""From the options of `plan` and `prune` to a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from secateur.core.errors import UsageError

if TYPE_CHECKING:
    from secateur.core.plan import Plan
    from secateur.core.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The options that decide what goes."""

    method: str
    sparsity: str | None
    pattern: str | None
    units: str
    ratio: float | None
    drop_layers: int | None
    sub_blocks: bool
    align: int
    criterion: str | None
    repair: str | None
    scope: str | None
    allocation: str | None
    calib: str
    samples: int
    calib_window: int
    protect: Sequence[str] | None
    seed: int

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Choice:
        """Return the choice among the options of a verb, by name; raises UsageError if they contradict each other."""
        choice = cls(**{field.name: options[field.name] for field in fields(cls)})
        choice.check()
        return choice

    def check(self) -> None:
        """Raise UsageError for options that contradict each other, before anything heavy is imported."""
        weights = self.method not in ("width", "depth")
        if weights and (self.sparsity is None) == (self.pattern is None):
            raise UsageError("say how much to prune: either --sparsity 0.5 or --pattern 2:4")
        if not weights and (self.sparsity or self.pattern):
            raise UsageError(f"--method {self.method} removes whole units: give --ratio instead of --sparsity or --pattern")
        if weights and (self.ratio is not None or self.drop_layers is not None):
            raise UsageError("--ratio and --drop-layers belong to --method width and depth: give --sparsity or --pattern")
        if self.pattern is not None and ":" not in self.pattern:
            raise UsageError(f"pattern {self.pattern!r} is not N:M such as 2:4; a ratio goes to --sparsity")
        if self.sparsity is not None and ":" in self.sparsity:
            raise UsageError(f"sparsity {self.sparsity!r} is a pattern: give it to --pattern")
        if self.method == "width" and self.ratio is None:
            raise UsageError("say how much to narrow: --ratio 0.2")

    def plan(self, model: str, progress: Progress) -> Plan:
        """Return the plan for `model`."""
        from secateur import pipeline

        calibration = pipeline.Calibration(text=self.calib, samples=self.samples, window=self.calib_window)
        if self.method == "width":
            width = pipeline.Width(units=tuple(self.units.split(",")), ratio=self.ratio or 0.0, allocation=self.allocation or "uniform", align=self.align)
            return pipeline.plan_width(model, width, calibration=calibration, repair=self.repair or "lsq", seed=self.seed, progress=progress)
        if self.method == "depth":
            depth = pipeline.Depth(layers=self.drop_layers, ratio=self.ratio, sub_blocks=self.sub_blocks)
            return pipeline.plan_depth(model, depth, calibration=calibration, seed=self.seed, progress=progress)
        return pipeline.plan(
            model,
            sparsity=self.sparsity or self.pattern or "",
            method=self.method,
            criterion=self.criterion,
            repair=self.repair,
            scope=self.scope,
            allocation=self.allocation,
            calibration=calibration,
            protect=self.protect or (),
            seed=self.seed,
            progress=progress,
        )
