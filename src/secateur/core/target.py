"""A budget in the user's own words, such as `params=80%` or `ram=300MB@ctx2048`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Literal

from secateur.core.footprint import Footprint
from secateur_runtime.errors import TargetError, UsageError, nearest

Metric = Literal["params", "size", "ram", "ratio"]
METRICS: tuple[Metric, ...] = ("params", "size", "ram", "ratio")
EXAMPLES = "params=110M, params=80%, size=200MB, ram=300MB@ctx2048 or ratio=0.2"
KV_WIDTHS = {"f16": 2, "bf16": 2, "f32": 4}

_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9}
_BYTES = {
    "": 1,
    "b": 1,
    "k": 10**3,
    "kb": 10**3,
    "m": 10**6,
    "mb": 10**6,
    "g": 10**9,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
_AMOUNT = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) ?([A-Za-z]{0,3}|%)", re.ASCII)
_CONTEXT = re.compile(r"(.*)@ctx([1-9][0-9]{0,8})", re.ASCII)
_DIGITS = 4
"""Figures of a nearest target: enough to come close, few enough to type."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One budget: an upper bound on `metric`.

    The budget of `ratio` is a lower bound on the share of the block parameters that is removed.
    amount: as written, in `unit`: a suffix of a count or of bytes, or `%` of the whole model.
    context: tokens in the KV cache, for `ram`.
    """

    metric: Metric
    amount: Decimal
    unit: str = ""
    context: int = 0

    @property
    def scale(self) -> Fraction:
        """What one of its unit is; a share of the whole for `%`."""
        if self.unit == "%":
            return Fraction(1, 100)
        return Fraction((_COUNTS if self.metric in ("params", "ratio") else _BYTES)[self.unit.lower()])

    @property
    def value(self) -> Fraction:
        """The amount in parameters or bytes, or as a share of the whole."""
        return Fraction(self.amount) * self.scale

    def __str__(self) -> str:
        return f"{self.metric}={_plain(self.amount)}{self.unit}" + (
            f"@ctx{self.context}" if self.context else ""
        )


@dataclass(frozen=True, slots=True)
class Target:
    """Budgets that a pruned model must meet, all of them; at least one.

    kv_type: how the KV cache of `ram` stores a number, a key of `KV_WIDTHS`.
    """

    limits: tuple[Limit, ...]
    kv_type: str = "f16"

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Target:
        """Parse budgets; a text may hold several, comma-separated.

        Raises TargetError with one line for anything else.
        """
        limits: list[Limit] = []
        kinds: set[str] = set()
        for text in (part.strip() for whole in texts for part in whole.split(",")):
            key, equals, value = text.partition("=")
            if key == "kv" and equals:
                kinds.add(_kv_type(value))
            else:
                limits.append(_limit(text, key, value))
        if not limits:
            raise TargetError(f"a target needs a budget, such as {EXAMPLES}")
        if len(kinds) > 1 or (kinds and all(limit.metric != "ram" for limit in limits)):
            raise TargetError(
                "kv= says once how the cache of a ram= target is stored: ram=300MB@ctx2048,kv=f32"
            )
        return cls(tuple(limits), *kinds)

    @classmethod
    @lru_cache(maxsize=128)
    def of(cls, text: str) -> Target:
        """Return the budgets of one text, which is parsed once; raises as `parse` does."""
        return cls.parse([text])

    def __str__(self) -> str:
        return ",".join([*map(str, self.limits), *(["kv=" + self.kv_type] if self.kv_type != "f16" else [])])

    def met(self, cut: Footprint, whole: Footprint) -> bool:
        """Whether a model of footprint `cut`, made of one of footprint `whole`, meets every budget."""
        return all(self._is_met(limit, cut, whole) for limit in self.limits)

    def cache_bytes(self, values: int) -> int:
        """Return the bytes of the longest KV cache that a budget counts; 0 where no budget counts one.

        values: numbers in the cache for each token.
        """
        return values * KV_WIDTHS[self.kv_type] * max((limit.context for limit in self.limits), default=0)

    def nearest(self, cut: Footprint, whole: Footprint) -> Target:
        """Return the nearest target that a model of footprint `cut` meets.

        Each budget that `cut` misses moves to where `cut` meets it, rounded to a few digits.
        """
        return replace(
            self,
            limits=tuple(
                limit if self._is_met(limit, cut, whole) else self._moved(limit, cut, whole)
                for limit in self.limits
            ),
        )

    def _is_met(self, limit: Limit, cut: Footprint, whole: Footprint) -> bool:
        used = self._used(limit, cut)
        all_of_it = self._used(limit, whole)
        if limit.metric == "ratio":
            return all_of_it - used >= limit.value * all_of_it
        return used <= limit.value * (all_of_it if limit.unit == "%" else 1)

    def _used(self, limit: Limit, of: Footprint) -> int:
        match limit.metric:
            case "params":
                return of.parameters
            case "ratio":
                return of.block_parameters
            case "size":
                return of.weight_bytes
            case "ram":
                return of.weight_bytes + limit.context * of.kv_bytes_per_token(KV_WIDTHS[self.kv_type])

    def _moved(self, limit: Limit, cut: Footprint, whole: Footprint) -> Limit:
        used = self._used(limit, cut)
        all_of_it = self._used(limit, whole)
        if limit.metric == "ratio":
            return replace(limit, amount=_rounded(1 - Fraction(used, all_of_it), limit.scale, math.floor))
        return replace(
            limit,
            amount=_rounded(Fraction(used, all_of_it if limit.unit == "%" else 1), limit.scale, math.ceil),
        )


def refuse_if_met(target: Target, whole: Footprint, *, verb: str = "cut", with_bytes: bool = False) -> None:
    """Raise UsageError if the model meets `target` as it is, so that nothing has to be removed.

    whole: footprint of the model before it is pruned.
    verb: what the caller would do to the model, for the message.
    with_bytes: whether the message gives the bytes of the weights too.
    """
    if target.met(whole, whole):
        weight = f", {whole.weight_bytes:,} bytes" if with_bytes else ""
        raise UsageError(
            f"the model meets {target} as it is ({whole.parameters:,} parameters{weight}):"
            f" there is nothing to {verb}"
        )


def _limit(text: str, key: str, value: str) -> Limit:
    """Parse one budget."""
    metric = next((known for known in METRICS if known == key), None)
    if metric is None:
        raise TargetError(
            f"target {text!r} is none of {', '.join(METRICS)}{nearest(key, METRICS)}: write {EXAMPLES}"
        )
    placed = _CONTEXT.fullmatch(value)
    if bool(placed) != (metric == "ram"):
        wanted = (
            "needs a context, whose KV cache counts: ram=300MB@ctx2048"
            if metric == "ram"
            else "takes no context: only ram= does"
        )
        raise TargetError(f"target {text!r} {wanted}")
    amount, unit = _amount(text, placed[1] if placed else value)
    limit = Limit(metric, amount, unit, int(placed[2]) if placed else 0)
    known = {"", "%"} if metric == "ratio" else {*(_COUNTS if metric == "params" else _BYTES), "%"}
    if unit.lower() not in known:
        raise TargetError(f"target {text!r} has the unit {unit!r}; known: {', '.join(sorted(known - {''}))}")
    if not limit.value or (limit.value >= 1) == (metric == "ratio" or unit == "%"):
        raise TargetError(
            f"target {text!r} must be a share below 1 (80% of the model) or an amount above it: write"
            f" {EXAMPLES}"
        )
    return limit


def _amount(text: str, value: str) -> tuple[Decimal, str]:
    found = _AMOUNT.fullmatch(value)
    if not found:
        raise TargetError(f"target {text!r} holds no amount: write {EXAMPLES}")
    return Decimal(found[1]), found[2]


def _kv_type(value: str) -> str:
    if value not in KV_WIDTHS:
        raise TargetError(
            f"the KV cache cannot be stored as {value!r}{nearest(value, KV_WIDTHS)}; known:"
            f" {', '.join(KV_WIDTHS)}"
        )
    return value


def _rounded(value: Fraction, scale: Fraction, way: Callable[[Fraction], int]) -> Decimal:
    """Return `value` in units of `scale` with few digits, rounded the way it still holds."""
    amount = value / scale
    places = _DIGITS - 1 - math.floor(math.log10(amount)) if amount else 0
    return Decimal(way(amount * Fraction(10) ** places)).scaleb(-places)


def _plain(amount: Decimal) -> str:
    return f"{amount.normalize():f}"
