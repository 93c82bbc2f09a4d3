"""What the README.md of a recovered model says beyond the one of the pruned model it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CARD = "README.md"
_HEADING = "## What was recovered"
_BARE = """---
library_name: transformers
pipeline_tag: text-generation
tags:
- secateur
---

# {name}, recovered
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What is known of a recovery.

    name: what the student is called; said: how it was done, in words; teacher: what it learned from, or
    empty.
    kl, nll: before and after, on held-out windows, nats per token; kl is the divergence from the teacher.
    difference: largest one between the reloaded folder and the run that wrote it, relative to the largest
    value.
    """

    name: str
    teacher: str
    said: Mapping[str, str]
    kl: tuple[float, float]
    nll: tuple[float, float]
    difference: float


def recovered_card(card: str, recovery: Recovery) -> str:
    """Return `card`, the model card of the student (empty if it has none), with a section on its recovery."""
    lines = [
        (card or _BARE.format(name=recovery.name)).rstrip(),
        "",
        _HEADING,
        "",
        (
            "Its weights were trained with Secateur after it was pruned; `plan.json`, if there is one,"
            f" repeats the pruning alone. Teacher: {recovery.teacher}."
        ),
        "",
        *(f"- {key}: {value}" for key, value in recovery.said.items()),
        "",
        "| held-out text, nats per token | before | after |",
        "|---|---|---|",
        f"| divergence from the teacher | {recovery.kl[0]:.4f} | {recovery.kl[1]:.4f} |",
        f"| negative log likelihood | {recovery.nll[0]:.4f} | {recovery.nll[1]:.4f} |",
        "",
        (
            "The folder was loaded again and run: it differs from what was meant by"
            f" {recovery.difference:.1e} of the largest value at most."
        ),
    ]
    return "\n".join(lines) + "\n"
