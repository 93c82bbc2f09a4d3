"""The head of a card is YAML that the hub reads."""

from __future__ import annotations

import yaml

from secateur.core.card_front_matter import bare_card, front_matter


def test_front_matter_is_yaml_between_two_lines() -> None:
    text = front_matter(("pruned", "secateur"), base="org/model")
    before, head, after = text.split("---\n")
    assert (before, after) == ("", "")
    assert yaml.safe_load(head) == {
        "base_model": "org/model",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["pruned", "secateur"],
    }
    assert "base_model" not in front_matter()


def test_a_bare_card() -> None:
    assert bare_card("tiny, pruned") == (
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- secateur\n---\n"
        "\n# tiny, pruned\n"
    )
