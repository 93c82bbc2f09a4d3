"""The options that decide what is removed, which `plan` and `prune` share, and how they become a plan."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from secateur.cli.shared import options
from secateur.core.target import Target
from secateur_runtime.errors import UsageError

if TYPE_CHECKING:
    from secateur.calibrate.calibration import Calibration
    from secateur.pipeline.prune.plan import Goal

_BELONGS = {
    **dict.fromkeys(("sparsity", "pattern", "scope"), ("weights",)),
    **dict.fromkeys(("units", "uniform"), ("width", "auto")),
    "align": ("width", "auto", "vocab"),
    "keep_heads": ("width",),
    **dict.fromkeys(("drop_layers", "sub_blocks"), ("depth",)),
    "ratio": ("width", "depth", "vocab"),
    "target": ("width", "depth", "auto", "vocab"),
    "layers": ("width", "depth", "auto"),
    **dict.fromkeys(("repair", "protect"), ("weights", "width", "depth", "auto")),
    "criterion": ("weights", "width", "depth"),
    **dict.fromkeys(("allocation", "rotate"), ("weights", "width")),
}
"""Options that only some kinds of pruning know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneOptions:
    """The options that decide what is removed.

    Raises UsageError for options that contradict each other, before anything heavy is imported.
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
    def kind(self) -> str:
        """What is removed: `weights`, units (`width`), blocks (`depth`), both (`auto`) or tokens (`vocab`).

        The method `auto` without a target means weights.
        """
        if self.method == "auto" and self.target is not None:
            return "auto"
        return self.method if self.method in ("width", "depth", "vocab") else "weights"

    def __post_init__(self) -> None:
        self._check_kind()
        self._check_amount()
        if self.target is not None:
            Target.parse(self.target)

    def _check_kind(self) -> None:
        """Raise UsageError for options of another kind of pruning."""
        for field in fields(self):
            kinds = _BELONGS.get(field.name, (self.kind,))
            if self.kind not in kinds and getattr(self, field.name) != field.default:
                name = field.name.replace("_", "-")
                methods = " and ".join(
                    "of weights" if kind == "weights" else f"--method {kind}" for kind in kinds
                )
                raise UsageError(
                    f"--{name} belongs to pruning {methods}, not to --method {self.method}: leave it out"
                )

    def _check_amount(self) -> None:
        """Raise UsageError unless the options say how much to remove, and say it once."""
        if self.kind == "weights" and (self.sparsity is None) == (self.pattern is None):
            raise UsageError("say how much to prune: either --sparsity 0.5 or --pattern 2:4")
        if self.pattern is not None and ":" not in self.pattern:
            raise UsageError(f"pattern {self.pattern!r} is not N:M such as 2:4; a ratio goes to --sparsity")
        if self.sparsity is not None and ":" in self.sparsity:
            raise UsageError(f"sparsity {self.sparsity!r} is a pattern: give it to --pattern")
        if self.kind in ("width", "vocab") and (self.ratio is None) == (self.target is None):
            raise UsageError("say how much to narrow: either --ratio 0.2 or --target params=80%")
        sampled = any(
            getattr(self, field.name) != field.default
            for field in fields(self)
            if field.name in ("samples", "calib_window")
        )
        if self.kind == "vocab" and self.calib != "self" and sampled:
            raise UsageError(
                "--method vocab counts the tokens of the whole text: leave out --samples and --calib-window"
            )

    def calibration(self) -> Calibration:
        """Return the calibration that these options ask for."""
        from secateur.calibrate.calibration import Calibration

        return Calibration(text=self.calib, samples=self.samples, window=self.calib_window)

    def goal(self) -> Goal:
        """Return what is to go."""
        from secateur.pipeline.prune.auto.decide import Auto
        from secateur.pipeline.prune.depth.decide import Depth
        from secateur.pipeline.prune.vocabulary import Vocab
        from secateur.pipeline.prune.weights.decide import Sparsity
        from secateur.pipeline.prune.width.decide import Width

        parts: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("criterion", "repair", "allocation", "protect")
            if getattr(self, name) is not None
        }
        target = ",".join(self.target) if self.target else None
        if self.kind == "depth":
            parts |= {
                name: getattr(self, name)
                for name in ("drop_layers", "ratio", "sub_blocks", "layers", "dtype")
            }
            return Depth(target=target, **parts)
        if self.kind == "weights":
            return Sparsity(
                sparsity=self.sparsity or self.pattern or "",
                method=self.method,
                scope=self.scope,
                rotate=self.rotate,
                **parts,
            )
        if self.kind == "vocab":
            return Vocab(ratio=self.ratio, target=target, align=self.align, dtype=self.dtype)
        parts |= {name: getattr(self, name) for name in ("align", "uniform", "layers", "dtype")}
        if self.units is not None:
            parts["units"] = tuple(unit.strip() for unit in self.units.split(","))
        if self.kind == "auto":
            return Auto(target=target or "", **parts)
        return Width(target=target, ratio=self.ratio, keep_heads=self.keep_heads, rotate=self.rotate, **parts)
