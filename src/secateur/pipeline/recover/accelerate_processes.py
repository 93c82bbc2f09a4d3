"""TODO docstring."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from secateur.core.process_memory import let_train
from secateur_runtime.errors import MissingExtraError

_WAIT = timedelta(days=7)
"""How long processes wait for the first one, which runs the teacher alone."""


def _accelerator() -> Any:
    let_train()
    try:
        from accelerate import Accelerator
        from accelerate.utils import InitProcessGroupKwargs
    except ImportError:
        raise MissingExtraError(
            "training a whole model needs accelerate: pip install 'secateur[recover]', or use --method local"
        ) from None
    return Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=_WAIT)])


def is_first_process() -> bool:
    """Whether this is the only process, or the first of those that `accelerate launch` started.

    The one that writes.
    """
    return int(os.environ.get("RANK", "0")) == 0


def processes() -> int:
    """Return how many processes `accelerate launch` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def share(made: Any) -> Any:
    """Return what the first process made, in every process."""
    if processes() == 1:
        return made
    from accelerate.utils import broadcast_object_list

    (found,) = broadcast_object_list([made])
    return found
