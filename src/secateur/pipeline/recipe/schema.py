"""Recipes: what a YAML file may say, checked whole before anything runs."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from secateur.calibrate.calibration import Calibration
from secateur.core.process_memory import let_train
from secateur.core.target import Limit, Target
from secateur.pipeline.export.formats import DEFAULT, USUAL, Exporter, exporter_for
from secateur.pipeline.prune.kinds import AUTO, PRUNINGS, WEIGHTS, Goal, kind_called, kind_of
from secateur.pipeline.prune.weights.methods import weight_methods
from secateur.pipeline.quantize.quantize import Quantization
from secateur.pipeline.recover.distill import Distill
from secateur.pipeline.recover.method_options import options_kind
from secateur.pipeline.recover.methods import RECOVERIES, RecoverOptions
from secateur_runtime.errors import MissingCheckerError, MissingExtraError, UsageError, nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """Write the model; format and type as in `secateur export`."""

    type: str = USUAL
    format: str = DEFAULT

    @property
    def exporter(self) -> Exporter:
        """The format; raises UsageError for one that is not known, or does not have the type."""
        return exporter_for(self.format, self.type)


@dataclass(frozen=True, slots=True, kw_only=True)
class Eval:
    """Measure the model as it is now, and compare it with the dense one.

    On `count` windows of `window` tokens of `text`.
    """

    text: str = "builtin"
    window: int = 2048
    count: int = 20
    compute: str = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What must hold, or the run fails.

    perplexity: at most; perplexity_ratio: to the dense model's; kl: divergence from it, nats per token, of
    the last eval.
    size: bytes of what was made last, a number or such as `90MB`.
    """

    perplexity: float | None = None
    perplexity_ratio: float | None = None
    kl: float | None = None
    size: str | None = None

    @property
    def bytes(self) -> int | None:
        """The size in bytes; raises TargetError where it is none."""
        (limit,) = Target.parse([f"size={self.size}"]).limits if self.size else (None,)
        if isinstance(limit, Limit) and limit.unit == "%":
            raise UsageError(f"gate size {self.size!r} is no number of bytes: write 90MB")
        return int(limit.value) if limit else None


Options = Goal | RecoverOptions | Quantization | Export | Eval | Gate
KINDS = ("prune", "recover", "quantize", "export", "eval", "gate")
CHANGING = ("prune", "recover", "quantize")
"""Stages that make another model of the one they get."""
_CALIBRATED = CHANGING
_TOKENS = "tokens"
"""Stands for a prune that changes the tokens which the model reads."""
_TOP = ("model", "seed", "calibration", "stages")
_EXTRAS = {"quantize": ("compressed_tensors", "quantize")}


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: its kind, of `KINDS`, its options, and the text it is calibrated with."""

    kind: str
    options: Options
    calibration: Calibration


@dataclass(frozen=True, slots=True)
class Recipe:
    """Stages in order, made of the model that is called `model`."""

    model: str
    seed: int
    stages: tuple[Stage, ...]


def read_recipe(path: Path, *, model: str = "", changes: Sequence[str] = ()) -> Recipe:
    """Return the recipe of a YAML file, checked: names, values, order and what must be installed.

    model: instead of the file's; changes: such as `calibration.samples=8` or `quantize.bits=3`, for all
    stages of that kind.
    Raises UsageError with one line that says where the mistake is, MissingExtraError for a package that a
    stage needs.
    """
    body = _changed(_mapping(_loaded(path), "recipe", _TOP), changes)
    if model:
        body["model"] = model
    if not isinstance(body.get("model"), str):
        raise UsageError(f"{path} names no model: add `model: org/name`, or name one on the command line")
    calibration = _made(Calibration, body.get("calibration") or {}, "calibration")
    rows = body.get("stages")
    if not isinstance(rows, list) or not rows:
        raise UsageError(f"{path} has no stages: list some of {', '.join(KINDS)} under `stages:`")
    stages = tuple(_stage(row, f"stage {number}", calibration) for number, row in enumerate(rows, 1))
    _check_order(stages)
    _check_groups(stages)
    _check_extras(stages)
    seed = body.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise UsageError(f"seed {seed!r} is no whole number from 0")
    return Recipe(body["model"], seed, stages)


def _loaded(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read recipe {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UsageError(f"recipe {path} is not YAML: {' '.join(str(error).split())}") from None


def _mapping(body: Any, where: str, known: Iterable[str]) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise UsageError(f"{where} is {type(body).__name__}, not a mapping of {', '.join(known)}")
    for key in body:
        if key not in known:
            raise UsageError(
                f"{where}: unknown key {str(key)!r}{nearest(str(key), known)}; known: {', '.join(known)}"
            )
    return dict(body)


def _changed(body: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Return a recipe with `changes` made; raises UsageError for one that meets nothing."""
    for change in changes:
        key, equals, text = change.partition("=")
        where, _, name = key.partition(".")
        if not equals:
            raise UsageError(
                f"--set {change!r} is not KEY=VALUE such as calibration.samples=8 or quantize.bits=3"
            )
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UsageError(f"--set {change!r} holds no YAML value") from None
        if where in _TOP and not name:
            body[where] = value
        elif where == "calibration":
            body["calibration"] = {**(body.get("calibration") or {}), name: value}
        else:
            body["stages"] = _changed_stages(body.get("stages"), where, name, value)
    return body


def _changed_stages(rows: Any, kind: str, name: str, value: Any) -> Any:
    rows = [{row: None} if isinstance(row, str) else row for row in rows] if isinstance(rows, list) else []
    mine = [row for row in rows if isinstance(row, dict) and kind in row]
    if not mine or not name:
        known = (*_TOP, *KINDS)
        raise UsageError(f"--set {kind}.{name}: the recipe has no stage {kind!r}{nearest(kind, known)}")
    return [{kind: {**(row[kind] or {}), name: value}} if row in mine else row for row in rows]


def _stage(row: Any, where: str, calibration: Calibration) -> Stage:
    if isinstance(row, str):
        row = {row: None}
    body = _mapping(row, where, KINDS)
    if len(body) != 1:
        raise UsageError(f"{where} names {len(body)} stages: one each, as `- prune: ...`")
    ((kind, given),) = body.items()
    where = f"{where} ({kind})"
    if given is not None and not isinstance(given, dict):
        raise UsageError(f"{where} is {type(given).__name__}, not a mapping of options")
    fields = dict(given or {})
    if kind in _CALIBRATED:
        own = fields.pop("calibration", None)
        if own is not None:
            calibration = _made(
                Calibration,
                dataclasses.asdict(calibration) | _mapping(own, f"{where} calibration", _names(Calibration)),
                where,
            )
    return Stage(kind, _options(kind, fields, where), calibration)


def _options(kind: str, fields: dict[str, Any], where: str) -> Options:
    match kind:
        case "prune":
            return _pruning(fields, where)
        case "recover":
            return _recovery(fields, where)
        case "quantize":
            integers: Quantization = _made(Quantization, fields, where)
            integers.check()
            return integers
        case "export":
            return _exported(fields, where)
        case "eval":
            return _made(Eval, fields, where)  # type: ignore[no-any-return]
    gate: Gate = _made(Gate, fields, where)
    if not any(dataclasses.astuple(gate)):
        raise UsageError(f"{where} asks for nothing: give it some of {', '.join(_names(Gate))}")
    _ = gate.bytes
    return gate


def _exported(fields: dict[str, Any], where: str) -> Export:
    made: Export = _made(Export, fields, where)
    try:
        _ = made.exporter
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    return made


def _recovery(fields: dict[str, Any], where: str) -> Options:
    """Return how to recover; `method` is that of the command line."""
    method = fields.pop("method", "local")
    if method not in RECOVERIES:
        raise UsageError(
            f"{where}: unknown method {method!r}{nearest(str(method), RECOVERIES)}; known:"
            f" {', '.join(RECOVERIES)}"
        )
    kind, decided = options_kind(method)
    made: RecoverOptions = _made(kind, fields | decided, where)
    made.check()
    return made


def _pruning(fields: dict[str, Any], where: str) -> Options:
    """Return the goal that the options mean: `method` says of which kind, as on the command line."""
    method = str(fields.get("method", AUTO))
    known = (*(name for name in PRUNINGS if name != WEIGHTS), *weight_methods())
    if method not in known:
        raise UsageError(
            f"{where}: unknown method {method!r}{nearest(method, known)}; known: {', '.join(known)}"
        )
    kind = PRUNINGS[kind_called(method, targeted="target" in fields)]
    if "method" not in kind.options:
        fields.pop("method", None)
    if "sparsity" in kind.options and "pattern" in fields:
        fields["sparsity"] = fields.pop("pattern")
    if isinstance(fields.get("target"), list):
        fields["target"] = ",".join(map(str, fields["target"]))
    made: Goal = _made(kind.goal, fields, where)
    made.check()
    return made


def _made(kind: type[Any], fields: Mapping[str, Any], where: str) -> Any:
    """Return a dataclass of `fields`.

    Raises UsageError with one line for a key or a value that it does not take.
    """
    try:
        checked = _schema(kind).model_validate(fields)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            raise UsageError(
                f"{where}: unknown key {name!r}{nearest(name, _names(kind))}; known:"
                f" {', '.join(_names(kind))}"
            ) from None
        raise UsageError(
            f"{where}: {name or 'it'}: {problem['msg'][:1].lower()}{problem['msg'][1:]}, and it is"
            f" {problem.get('input')!r}"
        ) from None
    return kind(**{name: getattr(checked, name) for name in checked.model_fields_set})


def _schema(kind: type[Any]) -> type[BaseModel]:
    hints = get_type_hints(kind)
    fields: dict[str, Any] = {
        field.name: (hints[field.name], ... if field.default is dataclasses.MISSING else field.default)
        for field in dataclasses.fields(kind)
    }
    return create_model(
        kind.__name__, __config__=ConfigDict(extra="forbid", coerce_numbers_to_str=True), **fields
    )


def _names(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


def changes_the_tokens(stage: Stage) -> bool:
    """Whether the model reads other tokens after a stage, so that its teacher must too."""
    return stage.kind == "prune" and kind_of(cast("Goal", stage.options)).changes_tokens


def _check_order(stages: Sequence[Stage]) -> None:
    seen: list[str] = []
    for number, stage in enumerate(stages, 1):
        where = f"stage {number} ({stage.kind})"
        kind = stage.kind
        scales = isinstance(stage.options, Distill) and stage.options.row.quantized
        if scales and "quantize" not in seen:
            raise UsageError(f"{where} trains the scales of a quantized model: put a quantize before it")
        if kind == "recover" and not scales and "prune" not in seen:
            raise UsageError(f"{where} comes before any prune: there is nothing to recover from")
        if kind in CHANGING and not scales and "quantize" in seen:
            raise UsageError(
                f"{where} comes after quantize, and rounded weights are not changed again: move it before"
            )
        if kind in CHANGING and "export" in seen:
            raise UsageError(
                f"{where} comes after export, whose file would not hold what it makes: move it before"
            )
        if kind == "export" and "export" in seen:
            raise UsageError(f"{where}: the recipe exports twice: keep one")
        if (
            isinstance(stage.options, Gate)
            and "eval" not in seen
            and any((stage.options.perplexity, stage.options.perplexity_ratio, stage.options.kl))
        ):
            raise UsageError(
                f"{where} asks for a quality that no stage before it measures: put an eval before it"
            )
        changes_tokens = changes_the_tokens(stage)
        if changes_tokens and {*CHANGING, _TOKENS} & set(seen):
            raise UsageError(
                f"{where} prunes tokens, and every stage before it would be of another vocabulary: move it"
                " first"
            )
        seen.append(_TOKENS if changes_tokens else kind)


def _check_groups(stages: Sequence[Stage]) -> None:
    """Raise UsageError where pruning leaves widths that the groups of a later quantize do not divide."""
    cuts: list[Any] = [
        stage.options for stage in stages if {"align", "units"} <= set(_names(type(stage.options)))
    ]
    narrowed = [cut.align for cut in cuts if {"ffn", "hidden"} & set(cut.units)]
    for number, stage in enumerate(stages, 1):
        if isinstance(stage.options, Quantization) and any(align % stage.options.group for align in narrowed):
            group = stage.options.group
            least = min(narrowed)
            raise UsageError(
                f"stage {number} ({stage.kind}) has groups of {group}, and prune leaves multiples of {least}"
                f" inputs: add `align: {group}` to prune"
            )


def _needed(stage: Stage) -> Iterator[tuple[str, str]]:
    """Yield the packages that a stage needs, each with its extra."""
    if stage.kind in _EXTRAS:
        yield _EXTRAS[stage.kind]
    if isinstance(stage.options, Export) and stage.options.exporter.package:
        yield stage.options.exporter.package, stage.options.exporter.extra
    if isinstance(stage.options, Distill):
        let_train()
        for package in stage.options.row.packages:
            yield package, "recover"


def _check_extras(stages: Sequence[Stage]) -> None:
    for stage in stages:
        for package, extra in _needed(stage):
            if importlib.util.find_spec(package) is None:
                missing = MissingCheckerError if stage.kind == "export" else MissingExtraError
                raise missing(
                    f"stage {stage.kind} needs the package {package}: pip install 'secateur[{extra}]'"
                )
        if stage.calibration.text.startswith("hf:") and importlib.util.find_spec("datasets") is None:
            raise MissingExtraError(
                f"text from a data set needs the package datasets, for stage {stage.kind}: pip install"
                " 'secateur[datasets]'"
            )
