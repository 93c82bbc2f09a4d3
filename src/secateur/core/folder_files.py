"""Names of the files that lie next to the weights in a folder that Secateur wrote."""

from __future__ import annotations

PLAN = "plan.json"
"""What was removed from the model."""
CARD = "README.md"
"""The model card."""
MANIFEST = "secateur.json"
"""Digests of the weight files, and how they came about."""
