"""Text from a data set of the Hugging Face hub, or from a local folder laid out like one."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from secateur_runtime.errors import MissingExtraError, TextError, UsageError

LIMIT = 8 * 2**20
"""Characters after which reading stops: about two million tokens, far above any calibration or perplexity
run.
"""


def read(spec: str) -> str:
    """Return the texts of `hf:DATASET:CONFIG:SPLIT` joined by blank lines, at most about `LIMIT` characters.

    Rows are streamed, so a data set of terabytes costs no more than what is read. DATASET may be a local
    folder (one of the same name wins over the hub); CONFIG may be empty.

    Raises UsageError for a malformed spec, MissingExtraError without the `datasets` package, TextError for
    anything it cannot load.
    """
    name, config, split = _parse(spec)
    try:
        import datasets
    except ImportError:
        raise MissingExtraError(
            "text from a data set needs the datasets package: pip install 'secateur[datasets]'"
        ) from None
    try:
        with _quiet_retries():
            rows = datasets.load_dataset(name, config or None, split=split, streaming=True)
            return "\n\n".join(_texts(spec, rows))
    except ConnectionError:
        raise TextError(
            f"cannot reach the hub for {spec}: go online, or name a local folder or file instead"
        ) from None
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise TextError(f"cannot load {spec}: {reason}") from None


def _parse(spec: str) -> tuple[str, str, str]:
    parts = spec.removeprefix("hf:").rsplit(":", 2)
    if len(parts) != 3 or not parts[0] or not parts[2]:
        raise UsageError(
            f"text {spec!r} is not hf:DATASET:CONFIG:SPLIT (CONFIG may be empty: hf:DATASET::SPLIT)"
        )
    return parts[0], parts[1], parts[2]


def _texts(spec: str, rows: Any) -> Iterator[str]:
    seen = 0
    row: Mapping[str, object]
    for row in rows:
        text = row.get("text")
        if not isinstance(text, str):
            raise TextError(f"{spec} has no column 'text' of strings; its columns are {', '.join(row)}")
        yield text
        seen += len(text)
        if seen >= LIMIT:
            return


@contextmanager
def _quiet_retries() -> Iterator[None]:
    # offline, the hub client logs two lines for each of its retries, and the one line that matters drowns
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
