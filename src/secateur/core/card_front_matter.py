"""The YAML at the head of a model card, in one place for every card that Secateur writes."""

from __future__ import annotations

from collections.abc import Sequence


def front_matter(tags: Sequence[str] = ("secateur",), *, base: str = "") -> str:
    """Return the front matter of a causal language model in transformers, up to and with its closing line.

    base: id of the original model on the Hugging Face hub, left out if empty.
    """
    lines = [
        "---",
        *([f"base_model: {base}"] if base else []),
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags:",
        *(f"- {tag}" for tag in tags),
        "---",
    ]
    return "\n".join(lines) + "\n"


def bare_card(title: str) -> str:
    """Return a card that has nothing but its front matter and a title."""
    return f"{front_matter()}\n# {title}\n"
