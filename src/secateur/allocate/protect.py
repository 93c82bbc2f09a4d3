"""What the user wants left alone: whole blocks at either end, or tensors by glob."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from secateur.core.errors import UsageError
from secateur.core.graph import Graph

_ENDS = re.compile(r"(first|last)=(\d+)")


def protected(graph: Graph, rules: Sequence[str]) -> frozenset[str]:
    """Return the prunable tensors that `rules` protect.

    A rule is `first=N`, `last=N` (blocks), or a glob over tensor names such as `*.down_proj.weight`; one string may hold
    several, separated by commas. Raises UsageError for a rule that protects nothing.
    """
    names: set[str] = set()
    for rule in (part.strip() for text in rules for part in text.split(",")):
        found = _matches(graph, rule)
        if not found:
            raise UsageError(f"--protect {rule!r} matches no prunable tensor; use first=N, last=N or a glob such as '*.down_proj.weight'")
        names |= found
    return frozenset(names)


def _matches(graph: Graph, rule: str) -> set[str]:
    end = _ENDS.fullmatch(rule)
    if not end:
        return {linear.tensor for linear in graph.linears if fnmatchcase(linear.tensor, rule)}
    count = int(end[2])
    blocks = graph.blocks[:count] if end[1] == "first" else graph.blocks[max(0, len(graph.blocks) - count) :]
    return {linear.tensor for block in blocks for linear in block.linears}
