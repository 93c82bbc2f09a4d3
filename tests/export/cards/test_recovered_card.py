"""The section on recovery: added to the card of the student, or to a bare one."""

from __future__ import annotations

from secateur.core.card_front_matter import bare_card
from secateur.export.cards.recovered_card import Recovery, recovered_card

RECOVERY = Recovery(
    name="tiny",
    teacher="org/large",
    said={"Method": "lora", "Steps": "40"},
    kl=(0.51, 0.12344),
    nll=(3.5, 3.25),
    difference=3e-7,
)


def test_it_follows_the_card_of_the_student() -> None:
    card = recovered_card("# tiny, pruned\n\n", RECOVERY)
    before, _, section = card.partition("\n\n## What was recovered\n\n")
    assert before == "# tiny, pruned"
    assert "Teacher: org/large." in section
    assert "- Method: lora\n- Steps: 40\n" in section
    assert "| divergence from the teacher | 0.5100 | 0.1234 |" in section
    assert "| negative log likelihood | 3.5000 | 3.2500 |" in section
    assert "differs from what was meant by 3.0e-07 of" in section


def test_a_student_without_a_card() -> None:
    assert recovered_card("", RECOVERY).startswith(bare_card("tiny, recovered"))
