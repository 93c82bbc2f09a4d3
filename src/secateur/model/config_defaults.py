"""The config of a model with the defaults of its class in transformers, without importing that class.

Such a class imports activations, and these import what compiles and distributes models: 70 MB for a few
numbers. So another process imports the class once, and a file keeps the result.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from secateur.core.process_memory import spare_the_machine
from secateur.model.transformers_model import transformers_config
from secateur_runtime.files import write_text

_COSTLY = "transformers.activations"


def completed(config: Mapping[str, Any], folder: Path) -> Any:
    """Return the values of `transformers_config(config)` as a plain `PreTrainedConfig`.

    folder: keeps the file with the result. Raises OutputError if that cannot be written.
    """
    # What is imported already costs nothing more.
    if _COSTLY in sys.modules:
        return transformers_config(config)
    path = folder / f"config-{_digest(config)}.json"
    said = _kept(path) or _asked(config, path)
    if not said:
        # Raises here what it raised there.
        return transformers_config(config)
    from transformers import PreTrainedConfig

    found = PreTrainedConfig()
    found.update(said)
    return found


def _digest(config: Mapping[str, Any]) -> str:
    made_by = {name: version(name) for name in ("secateur", "transformers")}
    return hashlib.sha256(json.dumps([config, made_by], sort_keys=True).encode()).hexdigest()[:16]


def _kept(path: Path) -> dict[str, Any]:
    """Return the content of a file; empty if it is missing or damaged, since it can be made again."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}


def _asked(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the result of another process, and keep it in `path`; empty if the process fails."""
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=json.dumps(config),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return {}
    write_text(path, done.stdout, parents=True)
    return _kept(path)


def _answer() -> None:
    """Print the values that the class gives the config on standard input.

    A value that JSON cannot hold, such as a type of tensors, becomes null.
    """
    print(json.dumps(vars(transformers_config(json.load(sys.stdin))), default=lambda _: None))


if __name__ == "__main__":
    spare_the_machine()
    _answer()
