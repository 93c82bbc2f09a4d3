"""What another process would say of a config, said in this one.

Tests/model/test_completed.py asks another.
"""

from __future__ import annotations

import json
from pathlib import Path

from secateur.model.config_defaults import _digest
from secateur.model.handle import ModelHandle
from secateur.model.transformers_model import transformers_config


def tell(model: ModelHandle, folder: Path) -> None:
    """Leave in `folder`, where `model` is to be served from, what would be asked for first."""
    config = model.source.config
    (folder / f"config-{_digest(config)}.json").write_text(
        json.dumps(vars(transformers_config(config)), default=lambda _: None)
    )
