"""What tests of the command share: its type, its JSON, and options for little calibration text."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Secateur = Callable[..., tuple[int, str, str]]
"""Arguments of the command to exit code, stdout and stderr."""
SMALL = ["--samples", "4", "--calib-window", "64"]


def json_of(result: tuple[int, str, str]) -> dict[str, Any]:
    """Return the object that a run printed, which must have succeeded."""
    code, out, err = result
    assert code == 0, err
    body: dict[str, Any] = json.loads(out)
    return body
