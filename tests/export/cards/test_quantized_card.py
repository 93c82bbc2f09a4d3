"""The section on quantization: added to the card of the source, or to a bare one."""

from __future__ import annotations

from dataclasses import replace

from secateur.core.card_front_matter import bare_card
from secateur.export.cards.quantized_card import QuantizationFacts, quantized_card

FACTS = QuantizationFacts(
    name="tiny",
    said={"method": "gptq", "calibration": "/data/wiki.raw", "samples": "8"},
    grids={"int4-g32": 1_234_567},
    bits_per_weight=4.5,
    bytes=9_876_543,
    difference=2e-7,
    stock=True,
)


def test_it_follows_the_card_of_the_source() -> None:
    card = quantized_card("# tiny, pruned\n\nWhat was removed.\n\n\n", FACTS)
    before, _, section = card.partition("\n\n## How it was quantised\n\n")
    assert before == "# tiny, pruned\n\nWhat was removed."
    assert "- Grid int4-g32: 1,234,567 weights\n" in section
    assert (
        "- 4.50 bits for each of them, scales included; 9,876,543 bytes of weight files in all\n" in section
    )
    assert "- Method: gptq\n- Calibration text: wiki.raw\n- Windows: 8\n" in section
    assert "/home" not in card, "the folder of a text is private"
    assert "differs from what was meant by 2.0e-07 of" in section


def test_a_source_without_a_card() -> None:
    assert quantized_card("", FACTS).startswith(bare_card("tiny, quantised"))


def test_other_widths_need_our_package() -> None:
    needs = "and the package secateur (or `trust_remote_code=True`)"
    assert needs in quantized_card("", replace(FACTS, stock=False))
    assert needs not in quantized_card("", FACTS)
