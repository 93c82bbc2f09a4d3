"""The elastic backend: every level of a ladder in one model, its memory given back and taken again."""

from __future__ import annotations

from secateur.runtime.elastic.cache import Cache
from secateur.runtime.elastic.model import CHUNK, Body, Change, Elastic

__all__ = ["CHUNK", "Body", "Cache", "Change", "Elastic"]
