"""The config of a model with what its class in transformers fills in, had without importing that class.

Such a class imports activations, and these import whatever compiles and distributes models: 70 MB for a few
numbers. So it is asked once, in a process of its own, and what it says is kept in a file.
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
    """Return what `transformers_config` returns, but for its class; `folder` keeps it.

    Raises OutputError where that cannot be written.
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
    """Return what a file says; nothing where there is none, or it is damaged, as it can be made again."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}


def _asked(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return what another process says, and keep it; nothing where it fails."""
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
    """Say what the class makes of the config on standard input.

    What JSON has no word for, such as a type of tensors, is left out.
    """
    print(json.dumps(vars(transformers_config(json.load(sys.stdin))), default=lambda _: None))


if __name__ == "__main__":
    spare_the_machine()
    _answer()
