"""Text that ships with Python, the prose of its language reference: a default that always exists."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Mapping

from secateur_runtime.errors import TextError

_PARAGRAPH = re.compile(r"\n[ \t]*\n")
_SHORTEST = 80
_LETTERS = 0.85


def read() -> tuple[str, str]:
    """Return the text and where it came from: the same for every run of one Python release.

    Raises TextError where the Python distribution left `pydoc_data` out.
    """
    origin = f"help topics of Python {platform.python_version()}"
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise TextError(
            "this Python was installed without pydoc_data, which 'builtin' text is made of: name a text file"
            " instead"
        ) from None
    return "\n\n".join(_prose(topics)), origin


def _prose(topics: Mapping[str, str]) -> Iterator[str]:
    seen = set()
    for name in sorted(topics):
        for paragraph in _PARAGRAPH.split(topics[name]):
            line = " ".join(paragraph.split())
            # topics quote each other at length, and a calibration text should not repeat itself
            if line not in seen and _is_prose(line):
                seen.add(line)
                yield line


def _is_prose(line: str) -> bool:
    letters = sum(character.isalpha() or character == " " for character in line)
    return len(line) >= _SHORTEST and letters >= _LETTERS * len(line) and line[-1] in ".:!?"
