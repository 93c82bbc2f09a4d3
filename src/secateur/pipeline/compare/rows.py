"""Which rows a comparison has.

Methods as the user writes them, at targets that every method can be asked to meet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from secateur.allocate import ALLOCATIONS
from secateur.allocate.units import SPREADS
from secateur.core.footprint import Footprint, footprint
from secateur.core.graph import Graph
from secateur.core.pattern import Pattern
from secateur.core.target import Target
from secateur.criteria.depth import DEPTH_CRITERIA
from secateur.criteria.units import UNIT_CRITERIA, kinds_of
from secateur.pipeline.prune.kinds import PRUNINGS, WEIGHTS, Goal
from secateur.pipeline.prune.weights.decide import Sparsity
from secateur.pipeline.prune.weights.methods import method_named, weight_methods
from secateur.present.comparison_folder import NATIVE, ComparisonRow
from secateur.transform.repair import REPAIRS
from secateur.transform.unit_repair import UNIT_REPAIRS
from secateur_runtime.errors import TargetError, UnreachableTargetError, UsageError, nearest
from secateur_runtime.registry import Registry

QUANTIZED = ("q8_0", "q4_0")
"""Types of GGUF in which the whole model is always compared."""
NATIVE_TYPES = ("int8", "int4")
"""Types in which it is compared where speed is measured in the native backend."""
DEFAULT = (
    "magnitude",
    "wanda",
    "ria",
    "sparsegpt",
    "alps",
    "width",
    "width:allocation=sensitivity",
    "depth",
    "depth:sub-blocks",
    "auto",
)

ALL = "all"
"""The word for `every_method`."""
_DEFAULT_PARTS = {
    *("wanda:repair=none", "wanda:allocation=uniform"),
    *("width:allocation=uniform", "width:repair=lsq", "depth:criterion=influence"),
}
"""What Wanda, width and depth do by themselves."""

_HOW_MUCH = {"sparsity", "method", "ratio", "target", "drop_layers", "dtype"}
_YES = ("", "yes", "true", "1")


@dataclass(frozen=True, slots=True)
class RowMethod:
    """A way to prune: a name, and options over its defaults, `width:criterion=flap:units=ffn+kv`."""

    text: str
    name: str
    options: tuple[tuple[str, Any], ...]

    @classmethod
    def parse(cls, text: str) -> RowMethod:
        """Parse a method; raises UsageError with the nearest name for what is not known."""
        name, *given = text.strip().split(":")
        known = (*weight_methods(), *_kinds_of_units())
        if name not in known:
            raise UsageError(f"unknown method {name!r}{nearest(name, known)}; known: {', '.join(known)}")
        goal = PRUNINGS[name if name in _kinds_of_units() else WEIGHTS].goal
        method = cls(text.strip(), name, tuple(_option(goal, name, one) for one in given))
        method._check()
        return method

    @property
    def of_units(self) -> bool:
        """Whether it removes whole units, and bytes with them."""
        return self.name in _kinds_of_units()

    @property
    def kind(self) -> str:
        """Which of the kinds of pruning it is."""
        if self.of_units:
            return "structured"
        return (
            "magnitude"
            if method_named(self.name).replaced(dict(self.options).get("criterion"), None, None).criterion
            == "magnitude"
            else "unstructured"
        )

    def goal(self, size: Size, graph: Graph) -> Goal:
        """Return what to plan so that the model of `graph` meets `size`.

        Raises TargetError if this method cannot.
        """
        options = dict(self.options)
        if not self.of_units:
            return Sparsity(sparsity=size.sparsity(graph), method=self.name, **options)
        goal: Callable[..., Goal] = PRUNINGS[self.name].goal
        return goal(target=size.budget, **options)

    def _check(self) -> None:
        """Refuse options that cannot work with any model and any target."""
        options = dict(self.options)
        if self.of_units:
            goal: Callable[..., Goal] = PRUNINGS[self.name].goal
            goal(target="ratio=0.2", **options).check()
        else:
            _known(ALLOCATIONS, options.get("allocation", "uniform"))
            method_named(self.name).replaced(
                options.get("criterion"), options.get("repair"), options.get("scope")
            )


@dataclass(frozen=True, slots=True)
class Size:
    """How small every method shall make the model: a pattern such as `2:4`, or budgets."""

    pattern: Pattern | None
    target: Target | None

    @classmethod
    def parse(cls, text: str) -> Size:
        """Parse `2:4`, or budgets as `Target.parse` takes them, several that must all hold joined by `+`.

        Raises TargetError for anything else.
        """
        parts = [part.strip() for part in text.split("+")]
        patterns = [part for part in parts if "=" not in part]
        if not patterns:
            target = Target.parse(parts)
            metrics = [limit.metric for limit in target.limits]
            twice = next((metric for metric in metrics if metrics.count(metric) > 1), None)
            if twice:
                raise TargetError(
                    f"target {text!r} says {twice}= twice, and both would have to hold: separated by a comma"
                    " they are two targets"
                )
            return cls(None, target)
        if len(parts) > 1:
            raise TargetError(
                f"target {text!r} joins a pattern with something else: the pattern alone says how much goes"
            )
        try:
            pattern = Pattern.parse(parts[0])
        except UsageError as error:
            raise TargetError(
                f"target {text!r}: {error}; write 2:4, ratio=0.2, params=80%, size=200MB or ram=300MB@ctx2048"
            ) from None
        if not pattern.ratio:
            raise TargetError(f"target {text!r} takes nothing away")
        return cls(pattern, None) if pattern.m else cls(None, Target.parse([f"ratio={pattern.ratio:.6g}"]))

    def __str__(self) -> str:
        return str(self.pattern) if self.pattern else str(self.target).replace(",", "+")

    @property
    def in_bytes(self) -> bool:
        """Whether it counts bytes, of which zeros in place take as many as any other weight."""
        return self.target is not None and any(
            limit.metric in ("size", "ram") for limit in self.target.limits
        )

    @property
    def budget(self) -> str:
        """The target in the words that methods for units take; a pattern is the same share of all blocks."""
        return str(self.target) if self.target else f"ratio={self.pattern.ratio if self.pattern else 0:.6g}"

    def sparsity(self, graph: Graph) -> str:
        """Return which share of the linears' weights must be zero so that as many others are left.

        Raises TargetError if no share is enough.
        """
        if self.pattern:
            return str(self.pattern)
        assert self.target is not None
        whole = footprint(graph, {}, (), 1)
        weights = sum(graph.tensors[linear.tensor].numel for linear in graph.linears)
        removed = max(
            math.ceil(_must_go(self.target, metric, whole))
            for metric in {limit.metric for limit in self.target.limits}
        )
        if removed <= 0:
            raise TargetError(f"the model meets {self} as it is: there is nothing to prune")
        if removed >= weights:
            raise UnreachableTargetError(
                f"{self} is out of reach: {weights:,} weights can be zero, and {removed:,} would have to be"
            )
        return f"{math.ceil(1e6 * removed / weights) / 1e6:.6f}"


def _kinds_of_units() -> list[str]:
    """Return the kinds of pruning that can be asked to meet a target and leave the tokens as they are."""
    return [
        name for name in PRUNINGS if "target" in PRUNINGS[name].options and not PRUNINGS[name].changes_tokens
    ]


def every_method() -> list[str]:
    """Return a text for every registered method: of weights, and each part of Wanda, width and depth."""
    parts = {
        "wanda:repair": list(REPAIRS),
        "wanda:allocation": list(ALLOCATIONS),
        "width:criterion": [name for name in UNIT_CRITERIA if "ffn" in kinds_of(name)],
        "width:allocation": list(SPREADS),
        "width:repair": list(UNIT_REPAIRS),
        "depth:criterion": list(DEPTH_CRITERIA),
    }
    variants = [f"{part}={name}" for part, names in parts.items() for name in names]
    others = [variant for variant in variants if variant not in _DEFAULT_PARTS]
    own = [name for name in _kinds_of_units() if name not in ("width", "depth", "auto")]
    return [*weight_methods(), "width", *others, "depth", "depth:sub-blocks", "auto", *own]


def methods_named(texts: Sequence[str]) -> list[RowMethod]:
    """Return the methods of comma-separated texts, `all` for every one.

    Raises UsageError for an unknown one, and where there is none.
    """
    words = [word.strip() for text in texts for word in text.split(",")]
    return parsed(
        [",".join(every_method()) if word == ALL else word for word in words], RowMethod.parse, "methods"
    )


def rows_of(
    methods: Sequence[RowMethod], sizes: Sequence[Size], *, native: bool = False
) -> tuple[tuple[ComparisonRow, ...], tuple[str, ...]]:
    """Return the rows of every method at every size, the whole model first, and what was left out, in words.

    native: whether the whole model is also to run in few bits in the native backend.
    Raises TargetError where nothing is left.
    """
    few = (*QUANTIZED, *(f"{NATIVE}{kind}" for kind in NATIVE_TYPES if native))
    rows = [ComparisonRow("dense", "", "dense"), *(ComparisonRow(kind, "", "quantized") for kind in few)]
    left_out = []
    for size in sizes:
        able = [method for method in methods if method.of_units or not size.in_bytes]
        rows += [ComparisonRow(method.text, str(size), method.kind) for method in able]
        unable = [method.text for method in methods if method not in able]
        if unable and not able:
            raise TargetError(
                f"{size} counts bytes, and {', '.join(unable)} leave zeros that take as many: add a method"
                " such as width, or use params= or ratio="
            )
        if unable:
            left_out.append(f"{', '.join(unable)} not at {size}: zeros in place take as many bytes")
    return tuple(dict.fromkeys(rows)), tuple(left_out)


def parsed(texts: Sequence[str], parse: Callable[[str], Any], what: str) -> list[Any]:
    """Return `parse` of each part of comma-separated texts, each once; raises UsageError if there is none."""
    found = [parse(part) for whole in texts for part in whole.split(",") if part.strip()]
    if not found:
        raise UsageError(f"--{what} names none")
    return list({str(getattr(one, "text", one)): one for one in found}.values())


def _must_go(target: Target, metric: str, whole: Footprint) -> float:
    """Return how many parameters must go so that the budgets of one metric hold."""
    count = 0.0
    for limit in target.limits:
        if limit.metric == metric:
            share = float(limit.value)
            of = (
                whole.block_parameters * share
                if metric == "ratio"
                else whole.parameters - share * (whole.parameters if limit.unit == "%" else 1)
            )
            count = max(count, of)
    return count


def _known(registry: Registry[Any], name: str) -> None:
    """Raise UsageError for a name that is not registered."""
    registry[name]


def _option(goal: type[Any], name: str, text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    key = key.strip().replace("-", "_")
    known = {field.name: field for field in fields(goal) if field.name not in _HOW_MUCH}
    if key not in known:
        shown = sorted(option.replace("_", "-") for option in known)
        raise UsageError(
            f"method {name} knows no option {key!r}{nearest(key, known)}; known: {', '.join(shown)}"
        )
    kind = str(known[key].type)
    try:
        return key, _converted(kind, value.strip())
    except ValueError:
        raise UsageError(
            f"method {name}: {key.replace('_', '-')}={value} has a value that cannot work"
        ) from None


def _converted(kind: str, value: str) -> Any:
    if kind == "bool":
        if value.lower() not in _YES:
            raise ValueError(value)
        return True
    if kind == "int":
        return int(value)
    if not value:
        raise ValueError(value)
    return tuple(value.split("+")) if kind.startswith(("tuple", "Sequence")) else value
