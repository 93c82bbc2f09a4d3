"""The section on recovery in the README.md of a model that was trained after pruning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from secateur.core.card_front_matter import bare_card

_HEADING = "## What was recovered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """Facts about a recovery.

    name: of the student. teacher: what it learned from, or empty. said: how it was done, in words.
    kl, nll: divergence from the teacher and negative log likelihood on held-out windows, before and after,
    nats per token. difference: the largest between the reloaded folder and the run that wrote it, relative to
    the largest value.
    """

    name: str
    teacher: str
    said: Mapping[str, str]
    kl: tuple[float, float]
    nll: tuple[float, float]
    difference: float


def recovered_card(card: str, recovery: Recovery) -> str:
    """Return the model card of the student (empty if it has none) with a section on its recovery."""
    lines = [
        (card or bare_card(f"{recovery.name}, recovered")).rstrip(),
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
