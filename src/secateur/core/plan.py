"""A plan is data: what is retained, what is dropped, the sparsity of each tensor, and who decided."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from secateur.core.execution import Execution
from secateur.core.footprint import dropped_halves, footprint
from secateur.core.graph import Block, Graph
from secateur.core.pattern import Pattern
from secateur_runtime.errors import PlanError, SecateurError, nearest

VERSION = 2
_FIELDS = {"version", "model", "keep", "drop", "merge", "sparsity", "execution", "made_by"}
_MADE_BY = {
    "units",
    "criterion",
    "unit_criterion",
    "depth_criterion",
    "repair",
    "rotate",
    "output_bias",
    "scope",
    "allocation",
    "target",
    "tried",
    "protect",
    "layers",
    "align",
    "keep_heads",
    "dtype",
    "calibration",
    "calibration_digest",
    "counted",
    "counted_digest",
    "samples",
    "window",
    "seed",
    "secateur",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do to one model.

    model: digest of the source weights, as `Source.digest()` gives it.
    keep: group name (`3.ffn`, `3.kv`, `3.head`, `hidden`, `vocab`) -> retained unit indices, ascending.
    Groups not named stay whole. Removing a key-value group removes its query heads; every retained group
    must retain the same number of query heads.
    drop: removed blocks, such as `3.attn`, `7.ffn` or `12` (both).
    merge: whole block -> dropped blocks whose differences from it are added to its weights. The JSON leaves
    it out if empty.
    sparsity: tensor name -> `0.5` or `2:4`; tensors not named stay dense.
    execution: how it is carried out: criterion, repairs, rotation, text, seed and storage type.
    made_by: who decided it, how and from what; nothing acts on it.
    version: of the file that it was read from. One of version 1 is written as it was read.
    """

    model: str
    keep: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    merge: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sparsity: Mapping[str, str] = field(default_factory=dict)
    execution: Execution = field(default_factory=Execution)
    made_by: Mapping[str, str] = field(default_factory=dict)
    version: int = VERSION

    def to_json(self) -> str:
        """Return the plan as JSON with sorted keys and a final newline."""
        body = {
            "version": self.version,
            "model": self.model,
            "keep": {name: list(units) for name, units in self.keep.items()},
            "drop": list(self.drop),
            **({"merge": {name: list(others) for name, others in self.merge.items()}} if self.merge else {}),
            "sparsity": dict(self.sparsity),
            **({"execution": self.execution.to_json()} if self.version > 1 else {}),
            "made_by": dict(self.made_by),
        }
        return json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Parse a plan; raises PlanError with one line for anything malformed."""
        body = _json_object(text)
        for key in body:
            if key not in _FIELDS:
                raise PlanError(f"plan has an unknown key {key!r}{nearest(key, _FIELDS)}")
        number = body.get("version")
        if type(number) is not int or number not in (1, VERSION):
            raise PlanError(f"plan version is {number!r}; this secateur reads versions 1 and {VERSION}")
        if not isinstance(body.get("model"), str):
            raise PlanError("plan has no 'model' digest")
        made_by = _strings(body, "made_by")
        sparsity = _strings(body, "sparsity")
        keep = _keep(body)
        return cls(
            model=body["model"],
            keep=keep,
            drop=_drop(body),
            merge=_merge(body),
            sparsity=sparsity,
            execution=_execution(number, body, made_by, keep, sparsity),
            made_by=made_by,
            version=number,
        )

    def explain(self, graph: Graph, stored: Graph | None = None) -> str:
        """Describe for people, in lines, what the plan does to the model of `graph` and who decided it.

        stored: the model with the biases that the plan's repair adds, if it adds any.
        """
        made_by = ", ".join(
            f"{key} {value}" for key, value in self.made_by.items() if value and key != "tried"
        )
        lines = [f"made by: {made_by}"]
        lines += [f"tried: {one}" for one in self.made_by.get("tried", "").split("; ") if one]
        lines += [f"{name}: sparsity {pattern}" for name, pattern in self.sparsity.items()]
        lines += self._explained_units(graph)
        lines += [f"{name}: drop" for name in self.drop]
        lines += [f"{name}: take in {', '.join(others)}" for name, others in self.merge.items()]
        if self.keep or self.drop:
            left = footprint(stored or graph, self.keep, self.drop, 1).parameters
            lines.append(f"parameters: {left:,} of {graph.parameters:,} ({left / graph.parameters:.1%})")
        return "\n".join(lines)

    def _explained_units(self, graph: Graph) -> list[str]:
        lines = list[str]()
        totals = dict[str, tuple[int, int]]()
        for group in (group for block in graph.blocks for group in block.groups):
            kept = len(self.keep.get(group.name, range(group.size)))
            before = totals.get(group.kind, (0, 0))
            totals[group.kind] = (before[0] + kept, before[1] + group.size)
            if group.name in self.keep:
                lines.append(f"{group.name}: keep {_of(kept, group.size)}")
        if graph.hidden.name in self.keep:
            lines.append(f"hidden channels: keep {_of(len(self.keep[graph.hidden.name]), graph.hidden.size)}")
        if graph.vocab.name in self.keep:
            lines.append(f"tokens: keep {_of(len(self.keep[graph.vocab.name]), graph.vocab.size)}")
        return lines + [
            f"all {kind} units: keep {_of(kept, size)}"
            for kind, (kept, size) in totals.items()
            if kept < size
        ]

    def digest(self) -> str:
        """Return `sha256:<hex>` of the JSON form."""
        return "sha256:" + hashlib.sha256(self.to_json().encode()).hexdigest()

    def validate(self, graph: Graph, model_digest: str) -> None:
        """Raise PlanError unless the plan fits a model.

        Every name and unit must exist in `graph`, every key-value group must retain the same number of query
        heads, and `model_digest` must be that of the plan.
        """
        if self.model != model_digest:
            raise PlanError(
                f"plan was made for {self.model[:19]}..., this model is {model_digest[:19]}...: make a new"
                " plan with `secateur plan`"
            )
        self._validate_sparsity(graph)
        self._validate_keep(graph)
        known = {f"{block.index}{part}" for block in graph.blocks for part in ("", ".attn", ".ffn")}
        for name in self.drop:
            if name not in known:
                raise PlanError(
                    f"plan drops {name!r}, which this model of {len(graph.blocks)} blocks does not have"
                )
        self._validate_merge(graph)

    def _validate_sparsity(self, graph: Graph) -> None:
        linears = {linear.tensor: linear for linear in graph.linears}
        for tensor, pattern in self.sparsity.items():
            if tensor not in linears:
                raise PlanError(
                    f"plan prunes {tensor!r}, which is not a prunable linear of this"
                    f" model{nearest(tensor, linears)}"
                )
            try:
                Pattern.parse(pattern).check(tensor, linears[tensor].in_features)
            except SecateurError as error:
                raise PlanError(f"plan: {error}") from None

    def _validate_keep(self, graph: Graph) -> None:
        groups = graph.groups
        for name, units in self.keep.items():
            if name not in groups:
                raise PlanError(
                    f"plan keeps units of {name!r}, which this model does not have{nearest(name, groups)}"
                )
            if not units or units[-1] >= groups[name].size:
                raise PlanError(
                    f"plan keeps units of {name!r} out of range: it has {groups[name].size}, and at least one"
                    " must survive"
                )
        if self.merge and self.execution.rotation:
            raise PlanError("plan merges blocks and rotates: leave one out")
        if graph.hidden.name in self.keep and self.sparsity:
            raise PlanError(
                "plan cuts hidden channels and prunes single weights: cut first, then prune the result"
            )
        for block in graph.blocks:
            self._validate_heads(block)
        others = (
            len(self.keep) > 1,
            self.drop,
            self.sparsity,
            self.merge,
            self.execution.rotation,
            self.execution.calibration,
        )
        if graph.vocab.name in self.keep and any(others):
            raise PlanError(
                "plan prunes tokens and something else, whose text has them: prune tokens first, then the"
                " result"
            )

    def _validate_merge(self, graph: Graph) -> None:
        """Raise PlanError for a merge that cannot be done.

        The block that takes in others must stay whole. Each block taken in must be dropped whole, be taken in
        once, and have tensors of the same shapes.
        """
        whole = {str(block.index): block for block in graph.blocks}
        taken = [other for others in self.merge.values() for other in others]
        for name in (*self.merge, *taken):
            if name not in whole:
                raise PlanError(
                    f"plan merges {name!r}, which is no block of this model: they are 0-{len(whole) - 1}"
                )
        for name, others in self.merge.items():
            if dropped_halves(whole[name], self.drop):
                raise PlanError(f"plan merges blocks into {name}, of which it drops a part")
            for other in others:
                if len(dropped_halves(whole[other], self.drop)) < 2:
                    raise PlanError(f"plan merges block {other} into {name} without dropping it")
                if _shapes(graph, whole[other]) != _shapes(graph, whole[name]):
                    raise PlanError(f"plan merges block {other} into {name}, whose tensors have other shapes")
        if len(set(taken)) < len(taken):
            raise PlanError("plan merges a block more than once")

    def _validate_heads(self, block: Block) -> None:
        """Raise PlanError unless all retained key-value heads serve the same number of query heads.

        `repeat_interleave` in the attention of transformers supports no other layout.
        """
        heads = f"{block.index}.head"
        groups = f"{block.index}.kv"
        if heads not in self.keep:
            return
        counts = dict.fromkeys(self.keep.get(groups, range(block.shape.n_kv_heads)), 0)
        for head in self.keep[heads]:
            group = head // (block.shape.n_heads // block.shape.n_kv_heads)
            if group in counts:
                counts[group] += 1
        if len(set(counts.values())) > 1 or 0 in counts.values():
            each = ", ".join(f"{count} of group {group}" for group, count in counts.items())
            raise PlanError(
                f"plan keeps query heads of {heads!r} unevenly ({each}): every surviving key-value group"
                " needs equally many, at least one"
            )


def _shapes(graph: Graph, block: Block) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix(block.prefix): graph.tensors[name].shape for name in block.tensors}


def _of(kept: int, size: int) -> str:
    return f"{kept:,} of {size:,} ({kept / size:.1%})"


def _json_object(text: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise PlanError(f"plan is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise PlanError("plan is not a JSON object")
    return body


def _strings(body: dict[str, Any], key: str) -> dict[str, str]:
    value = body.get(key, {})
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise PlanError(f"plan {key!r} must map names to strings")
    return value


def _execution(
    number: int,
    body: dict[str, Any],
    made_by: Mapping[str, str],
    keep: Mapping[str, tuple[int, ...]],
    sparsity: Mapping[str, str],
) -> Execution:
    if number > 1:
        return Execution.from_json(body.get("execution"))
    if "execution" in body:
        raise PlanError("plan of version 1 has an 'execution' section: say version 2")
    for key in made_by:
        if key not in _MADE_BY:
            raise PlanError(f"plan made_by has an unknown key {key!r}{nearest(key, _MADE_BY)}")
    return Execution.from_version_1(made_by, keep, sparsity)


def _keep(body: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    value = body.get("keep", {})
    if not isinstance(value, dict):
        raise PlanError("plan 'keep' must map groups to lists of units")
    for name, units in value.items():
        whole = isinstance(units, list) and all(type(unit) is int and unit >= 0 for unit in units)
        if not whole or any(later <= earlier for earlier, later in pairwise(units)):
            raise PlanError(f"plan keep[{name!r}] must be an ascending list of unit indices")
    return {name: tuple(units) for name, units in value.items()}


def _drop(body: dict[str, Any]) -> tuple[str, ...]:
    value = body.get("drop", [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise PlanError("plan 'drop' must be a list of block names such as '3.attn'")
    return tuple(value)


def _merge(body: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    value = body.get("merge", {})
    if not isinstance(value, dict):
        raise PlanError("plan 'merge' must map blocks to lists of dropped blocks")
    for name, others in value.items():
        if not isinstance(others, list) or not others or not all(isinstance(other, str) for other in others):
            raise PlanError(f"plan merge[{name!r}] must be a list of block names such as '9'")
    return {name: tuple(others) for name, others in value.items()}
