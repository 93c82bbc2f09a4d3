"""The processes that `accelerate launch` starts: how many, which is the first, and what they share."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from secateur.core.process_memory import let_train
from secateur_runtime.errors import MissingExtraError

_WAIT = timedelta(days=7)
"""How long processes wait for the first one, which runs the teacher alone."""


def make_accelerator() -> Any:
    """Return an `accelerate.Accelerator` for this process; raises MissingExtraError without the package."""
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
    """Return whether this process writes: the only one, or the first that `accelerate launch` started."""
    return int(os.environ.get("RANK", "0")) == 0


def processes() -> int:
    """Return how many processes `accelerate launch` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def share(made: Any) -> Any:
    """Return, in every process, the object that the first process passed as `made`."""
    if processes() == 1:
        return made
    from accelerate.utils import broadcast_object_list

    (found,) = broadcast_object_list([made])
    return found
