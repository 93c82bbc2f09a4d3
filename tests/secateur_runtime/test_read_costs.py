"""From a ladder's file to the arithmetic of policies."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.ladders import EXAMPLE

from secateur_runtime.ladder_costs import Observation
from secateur_runtime.read_costs import choices_of


def test_figures_are_those_of_the_ladder() -> None:
    choices = choices_of(EXAMPLE, kv_bytes=2, activations=lambda batch, tokens: 5.0)
    assert choices.units == ("1.ffn:2", "1.attn", "1.ffn", "0.kv:1")
    assert choices.chains == ((0, 2), (1,), (3,))
    for level in range(len(EXAMPLE)):
        seen = Observation(batch=3, tokens=7, remaining=2, available=0)
        assert choices.level(level, seen).need == EXAMPLE.need(level, 3, 9, kv_bytes=2) + 5
        assert choices.losses[level] == EXAMPLE.at(level).loss
        assert choices.flops[level] == EXAMPLE.at(level).flops


def test_prices_are_what_steps_add_on_average_and_never_negative() -> None:
    # 1.attn added 0.06 to the whole model and 0.06 at level 1; 1.ffn was on its own 0.2; 0.kv:1 was only
    # taken
    assert choices_of(EXAMPLE).prices == pytest.approx([0.05, 0.06, 0.2, 0.6])
    better = replace(EXAMPLE, costs=({"1.ffn:2": 1.9},))
    assert choices_of(better).prices[0] == 0


def test_another_ladder_has_another_digest() -> None:
    assert choices_of(EXAMPLE).ladder != choices_of(replace(EXAMPLE, costs=())).ladder
    assert choices_of(EXAMPLE).ladder == choices_of(EXAMPLE, kv_bytes=2).ladder
