"""How a plan is carried out: everything that applying it reads besides what survives."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

from secateur.core.pattern import Scope
from secateur_runtime.errors import PlanError, nearest

SEAM = "seam"
"""The repair of gaps: the linear before dropped sub-blocks is refitted to compensate for them."""
_UNIT_REPAIRS_OF_VERSION_1 = ("none", "bias", "affine", "lsq")


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationText:
    """Which text a plan needs, enough to read it again and to know it.

    text: as `Calibration.text`. samples, window: windows, and tokens in each.
    digest: `sha256:<hex>` of the token ids; empty where a plan does not say.
    """

    text: str
    samples: int
    window: int
    digest: str = ""

    @property
    def facts(self) -> dict[str, str]:
        """What a record of a decision says about its text."""
        return {
            "calibration": self.text,
            "samples": str(self.samples),
            "window": str(self.window),
            "calibration_digest": self.digest,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How a plan is carried out.

    criterion: name of the weight criterion; empty where the repair chooses which weights go.
    weight_repair: how the remaining weights compensate for those pruned one by one.
    scope: which weights compete.
    unit_repair: how the remaining units compensate for those that go.
    gap_repair: `seam` where the linear before dropped sub-blocks is refitted, or `none`.
    rotation: how the model is rotated first; empty for not at all.
    calibration: the text that criterion, repairs and rotation learn from; None for none.
    seed: of everything random.
    dtype: storage type that the plan was counted for; `auto` for that of the model.
    """

    criterion: str = ""
    weight_repair: str = "none"
    scope: Scope = "row"
    unit_repair: str = "none"
    gap_repair: str = "none"
    rotation: str = ""
    calibration: CalibrationText | None = None
    seed: int = 0
    dtype: str = "auto"

    @property
    def closes_gaps(self) -> bool:
        """Whether the linear before dropped sub-blocks is refitted."""
        return self.gap_repair == SEAM

    def to_json(self) -> dict[str, Any]:
        """Return the section of a plan of version 2."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: Any) -> Execution:
        """Parse the section of a plan of version 2; raises PlanError for anything malformed."""
        section = _section("execution", body, cls)
        text = section.pop("calibration", None)
        calibration = None
        if text is not None:
            calibration = CalibrationText(**_section("execution.calibration", text, CalibrationText))
            if min(calibration.samples, calibration.window) < 1:
                raise PlanError("plan execution.calibration needs at least one window of one token")
        made = cls(**section, calibration=calibration)
        if made.scope not in get_args(Scope):
            raise PlanError(f"plan execution.scope is {made.scope!r}; known: {', '.join(get_args(Scope))}")
        if made.gap_repair not in ("none", SEAM):
            raise PlanError(f"plan execution.gap_repair is {made.gap_repair!r}; known: none, {SEAM}")
        return made

    @classmethod
    def from_version_1(
        cls, made_by: Mapping[str, str], keep: Collection[str], sparsity: Collection[str]
    ) -> Execution:
        """Return how a plan of version 1 is carried out, which only its `made_by` says.

        keep, sparsity: what the plan narrows, and what it prunes weight by weight.
        Raises PlanError for a value that is not of its kind.
        """
        repair, _, gap = made_by.get("repair", "none").partition("+")
        if repair == SEAM:
            repair = "none"
            gap = SEAM
        scope = made_by.get("scope", "row")
        if scope not in get_args(Scope):
            raise PlanError(f"plan made_by.scope is {scope!r}; known: {', '.join(get_args(Scope))}")
        units = "none"
        if keep:
            # One that also pruned weights named the solver for these; its units were refitted.
            units = "lsq" if sparsity and repair not in _UNIT_REPAIRS_OF_VERSION_1 else repair
        return cls(
            criterion=made_by.get("criterion", "") if sparsity else "",
            weight_repair=repair if sparsity else "none",
            scope="tensor" if scope == "tensor" else "row",
            unit_repair=units,
            gap_repair=SEAM if gap == SEAM else "none",
            rotation=made_by.get("rotate", ""),
            calibration=_text_of_version_1(made_by),
            seed=_whole("seed", made_by.get("seed", "0")),
            dtype=made_by.get("dtype", "auto"),
        )


def _text_of_version_1(made_by: Mapping[str, str]) -> CalibrationText | None:
    if "calibration" not in made_by:
        return None
    if not {"samples", "window"} <= made_by.keys():
        raise PlanError(
            "plan needs calibration text but made_by does not say which: it needs calibration, samples and"
            " window"
        )
    return CalibrationText(
        text=made_by["calibration"],
        samples=_whole("samples", made_by["samples"]),
        window=_whole("window", made_by["window"]),
        digest=made_by.get("calibration_digest", ""),
    )


def _whole(name: str, text: str) -> int:
    if not text.isdecimal():
        raise PlanError(f"plan made_by.{name} is {text!r}, and must be a whole number")
    return int(text)


def _section(name: str, body: Any, kind: type[Execution | CalibrationText]) -> dict[str, Any]:
    """Return a JSON object whose keys and types are those of the fields of `kind`."""
    if not isinstance(body, dict):
        raise PlanError(f"plan {name!r} is not a JSON object")
    known = {field.name: int if field.type == "int" else str for field in fields(kind)}
    for key, value in body.items():
        if key not in known:
            raise PlanError(f"plan {name} has an unknown key {key!r}{nearest(key, known)}")
        if key != "calibration" and type(value) is not known[key]:
            raise PlanError(f"plan {name}.{key} must be {'a whole number' if known[key] is int else 'text'}")
        if type(value) is int and value < 0:
            raise PlanError(f"plan {name}.{key} is below 0")
    for field in fields(kind):
        if kind is CalibrationText and field.name not in body:
            raise PlanError(f"plan {name} lacks {field.name!r}")
    return dict(body)
