"""Time synthetic models in llama.cpp, and read off what a block and a byte cost on this machine."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from secateur.core.progress import Progress
from secateur.device.decode_model import nonnegative
from secateur.device.profile import OUTPUT, Rates
from secateur.device.synthetic_gguf import Synthetic
from secateur.runtime import Backend, Memory
from secateur.runtime.isolated import Isolated
from secateur.runtime.llamacpp import require_llamacpp
from secateur.runtime.timed_turns import Speed, Spread, take_turns

KINDS = ("f16", "q8_0", "q5_0", "q4_0")
"""Types of weights that are timed."""
TOKENS = 16
REPEAT = 10
"""Short runs and many of them, whose median counts: `bench` reports medians too."""
PROMPT = 4
LONG = 1024
_COPIED = 0.5
_LEAST = 1e-3
"""Seconds for 1e9 bytes: faster than any memory, for what noise would have cost nothing."""


def synthetics(blocks: int = 10) -> dict[str, Synthetic]:
    """Return the models that are timed.

    Blocks with next to nothing in them, one of each type with `blocks` real ones, a large vocabulary, a large
    cache.
    """
    found = {
        "blocks": Synthetic(kind="f16", layers=48, hidden=64, inner=64, heads=1, kv_heads=1, vocabulary=512)
    }
    found |= {
        kind: Synthetic(
            kind=kind, layers=blocks, hidden=768, inner=2048, heads=12, kv_heads=4, vocabulary=512
        )
        for kind in KINDS
    }
    found["vocabulary"] = Synthetic(
        kind="q8_0", layers=1, hidden=576, inner=512, heads=9, kv_heads=3, vocabulary=49152
    )
    return found | {
        "cache": Synthetic(kind="f16", layers=8, hidden=256, inner=256, heads=8, kv_heads=8, vocabulary=512)
    }


@dataclass(frozen=True, slots=True)
class TimedModel:
    """The timing of one synthetic model.

    seconds: of each token. cache: bytes of KV cache, on average. memory: of its process.
    """

    model: Synthetic
    seconds: Spread
    cache: float
    memory: Memory
    file: int
    context: int


def clock_machine(threads: int, progress: Progress) -> Rates:
    """Return the rates of this machine with `threads` threads; takes half a minute where nothing else runs.

    Raises MissingExtraError without xllamacpp.
    """
    require_llamacpp("timing a model")
    with ExitStack() as stack:
        run = Clocking(synthetics(), threads, stack)
        return rates(run.timed(take_turns(run.backends, run.prompts, TOKENS, REPEAT, progress)), threads)


class Clocking:
    """Synthetic models loaded in llama.cpp, to be timed in turns with each other, or with others.

    `stack` ends them.
    """

    def __init__(self, models: Mapping[str, Synthetic], threads: int, stack: ExitStack) -> None:
        self._models = models
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="secateur-device-")))
        self.prompts = [
            [index % 256 for index in range(LONG if name == "cache" else PROMPT)] for name in models
        ]
        self._files: list[int] = []
        self.backends: list[Backend] = []
        for (name, model), prompt in zip(models.items(), self.prompts, strict=True):
            path = folder / f"{name}.gguf"
            model.write(path)
            self._files.append(path.stat().st_size)
            options = {"path": str(path), "context": len(prompt) + TOKENS, "threads": threads}
            self.backends.append(
                stack.enter_context(Isolated("llama.cpp", "secateur.runtime.llamacpp:LlamaCpp", options))
            )

    def timed(self, speeds: Sequence[Speed]) -> dict[str, TimedModel]:
        """Return the measured models by name; `speeds` as `take_turns` returns them."""
        found = {}
        for (name, model), speed, prompt, backend, size in zip(
            self._models.items(), speeds, self.prompts, self.backends, self._files, strict=True
        ):
            seconds = Spread.of([1 / one for one in speed.decode])
            context = len(prompt) + TOKENS
            found[name] = TimedModel(
                model, seconds, model.cache * (len(prompt) + TOKENS / 2), backend.memory(), size, context
            )
        return found


def rates(timed: Mapping[str, TimedModel], threads: int) -> Rates:
    """Return the rates that explain the median times best, none of them negative."""
    rows = []
    spread = []
    for one in timed.values():
        row = [
            one.model.layers,
            one.cache / 1e9,
            *(one.model.read.get(kind, 0.0) / 1e9 for kind in (*KINDS, OUTPUT)),
        ]
        rows.append(np.array(row) / one.seconds.median)
        spread.append(one.seconds.median / one.seconds.low - 1)
    layer, cache, *weights = map(float, nonnegative(np.array(rows)))
    base = timed["blocks"]
    return Rates(
        threads=threads,
        layer=layer,
        weights={
            kind: 1e9 / max(value, _LEAST) for kind, value in zip((*KINDS, OUTPUT), weights, strict=True)
        },
        cache=1e9 / max(cache, _LEAST),
        base=float(_beside(base)),
        copied=[
            kind
            for kind in KINDS
            if _beside(timed[kind]) - _beside(base) > _COPIED * timed[kind].model.bytes[kind]
        ],
        spread=statistics.median(spread),
        runtime=f"llama.cpp (xllamacpp {version('xllamacpp')})",
        taken=datetime.now(UTC).strftime("%Y-%m-%d"),
    )


def _beside(one: TimedModel) -> int:
    """Return the bytes that the process held apart from the file and the cache."""
    return one.memory.peak - one.file - one.model.cache * one.context
