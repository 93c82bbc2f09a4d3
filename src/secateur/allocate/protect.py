"""What the user protects from pruning: whole blocks at either end, or tensors by glob."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from secateur.core.graph import Graph
from secateur_runtime.errors import UsageError

_ENDS = re.compile(r"(first|last)=([0-9]{1,9})")
Owned = dict[str, tuple[int, tuple[str, ...]]]
"""Name of a part -> its block and the names that a glob may match."""
_SPAN = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")


def protected(graph: Graph, rules: Sequence[str]) -> frozenset[str]:
    """Return the prunable tensors that `rules` protect.

    A rule is `first=N`, `last=N` (blocks), or a glob over tensor names such as `*.down_proj.weight`; one
    string may hold several, separated by commas. Raises UsageError for a rule that protects nothing.
    """
    owned: Owned = {
        linear.tensor: (block.index, (linear.tensor,)) for block in graph.blocks for linear in block.linears
    }
    return _matching(graph, owned, rules, "prunable tensor", "*.down_proj.weight")


def protected_groups(graph: Graph, rules: Sequence[str]) -> frozenset[str]:
    """Return the groups that `rules` protect; a glob is over names of groups (`*.kv`) and of their tensors.

    Rules are those of `protected`. Raises UsageError for a rule that protects nothing.
    """
    return _matching(graph, _groups(graph), rules, "group of units", "*.kv")


def protected_halves(graph: Graph, rules: Sequence[str]) -> frozenset[str]:
    """Return the sub-blocks (`3.attn`) that `rules` protect.

    Rules are those of `protected`; a glob is over blocks (`3`), sub-blocks (`*.attn`) and tensors. Raises
    UsageError for a rule that protects nothing.
    """
    return _matching(graph, _halves(graph), rules, "block or sub-block", "*.attn")


def protected_parts(graph: Graph, rules: Sequence[str]) -> frozenset[str]:
    """Return the groups and the sub-blocks that `rules` protect; a rule need not match both.

    Rules are those of `protected_groups` and `protected_halves`. Raises UsageError for a rule that protects
    nothing.
    """
    owned = _groups(graph)
    for name, (block, known) in _halves(graph).items():
        owned[name] = (block, (*owned.get(name, (block, ()))[1], *known))
    return _matching(graph, owned, rules, "group of units", "*.kv")


def layers_named(graph: Graph, text: str) -> frozenset[int]:
    """Return the blocks that `text` names, such as `0-3,8`; raises UsageError for unknown blocks."""
    found: set[int] = set()
    for part in text.split(","):
        span = _SPAN.fullmatch(part.strip())
        first, last = (int(span[1]), int(span[2] or span[1])) if span else (1, 0)
        if not first <= last < len(graph.blocks):
            raise UsageError(
                f"--layers {part.strip()!r} names no blocks of this model, which has"
                f" 0-{len(graph.blocks) - 1}: write 4-25 or 0-3,8"
            )
        found |= set(range(first, last + 1))
    return frozenset(found)


def _groups(graph: Graph) -> Owned:
    return {
        group.name: (block.index, (group.name, *(part.tensor for part in group.slices)))
        for block in graph.blocks
        for group in block.groups
    }


def _halves(graph: Graph) -> Owned:
    return {
        f"{block.index}.{part}": (block.index, (str(block.index), f"{block.index}.{part}", *names))
        for block in graph.blocks
        for part, names in block.halves.items()
    }


def _matching(graph: Graph, owned: Owned, rules: Sequence[str], what: str, glob: str) -> frozenset[str]:
    """Return the keys of `owned` that some rule matches."""
    names: set[str] = set()
    for rule in (part.strip() for text in rules for part in text.split(",")):
        if end := _ENDS.fullmatch(rule):
            count = min(int(end[2]), len(graph.blocks))
            spared = (
                range(count) if end[1] == "first" else range(len(graph.blocks) - count, len(graph.blocks))
            )
            found = {name for name, (block, _) in owned.items() if block in spared}
        else:
            found = {
                name for name, (_, known) in owned.items() if any(fnmatchcase(one, rule) for one in known)
            }
        if not found:
            raise UsageError(
                f"--protect {rule!r} matches no {what}; use first=N, last=N or a glob such as '{glob}'"
            )
        names |= found
    return frozenset(names)
