"""A small recipe, and runs of it on a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from tests.conftest import Maker

import secateur
from secateur.pipeline.recipe.runner import RecipeResult

BODY: dict[str, Any] = {
    "model": "smollm2-135m",
    "calibration": {"samples": 6, "window": 64},
    "stages": [
        {"prune": {"method": "width", "ratio": 0.2}},
        {"quantize": {"bits": 4, "method": "imatrix"}},
        {"eval": {"window": 64, "count": 2}},
        {"gate": {"perplexity_ratio": 2.0, "size": "1MB"}},
    ],
}


def write(path: Path, body: object) -> Path:
    path.write_text(yaml.safe_dump(body))
    return path


def run(
    tiny: Maker, tmp_path: Path, *changes: str, resume: bool = False, body: object = BODY
) -> RecipeResult:
    return secateur.run(
        write(tmp_path / "recipe.yaml", body),
        tmp_path / "out",
        model=str(tiny("llama")),
        changes=changes,
        resume=resume,
    )


def with_stages(*stages: object) -> dict[str, Any]:
    return {**BODY, "stages": list(stages)}
