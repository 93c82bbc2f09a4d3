"""The backend of our own kernels, which skip the zeros of pruned weights."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secateur.runtime import Generated, Memory
from secateur.runtime.process import process_memory
from secateur_runtime.decoder.native_decoder import Decoder, NativeCache
from secateur_runtime.kernels.dense_or_sparse import TimedForms
from secateur_runtime.kernels.kernel_weight import NAMES

_AT_ONCE = 256
"""Positions whose logits lie in memory together."""


@dataclass(frozen=True, slots=True)
class About:
    """What a loaded model is made of.

    isa: instruction set of the kernels. weights: bytes of all matrices.
    read: bytes of the matrices that a token reads; untied embeddings do not count.
    kinds: number of matrices of each shape and storage, `(rows, columns, kind, count)`.
    timed: the timings by which the storage was chosen.
    """

    isa: str
    weights: int
    read: int
    kinds: tuple[tuple[int, int, str, int], ...]
    timed: tuple[TimedForms, ...]


class Native:
    """A native decoder as a Backend.

    `open`, `prefill` and `decode` run sequences step by step, several of them together if need be.
    """

    name = "native"

    def __init__(self, decoder: Decoder, timed: tuple[TimedForms, ...] = ()) -> None:
        self._decoder = decoder
        self._timed = timed

    def open(self) -> NativeCache:
        """Return an empty cache for one sequence."""
        return self._decoder.open()

    def prefill(self, tokens: Sequence[int], cache: NativeCache) -> NDArray[np.float32]:
        """Read `tokens` into `cache` and return the logits after the last one, `[vocab_size]`."""
        last: NDArray[np.float32] = self._decoder.run(tokens, [cache] * len(tokens), 1)[0]
        return last

    def decode(self, tokens: Sequence[int], caches: Sequence[NativeCache]) -> NDArray[np.float32]:
        """Append one token to each cache and return the logits after it, `[len(tokens), vocab_size]`."""
        return self._decoder.run(tokens, caches, len(tokens))

    def logits(self, tokens: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """Yield the logits after each of `tokens`, `[positions, vocab_size]`, a few positions at a time."""
        cache = self.open()
        for start in range(0, len(tokens), _AT_ONCE):
            part = tokens[start : start + _AT_ONCE]
            yield self._decoder.run(part, [cache] * len(part), len(part))

    def logprobs(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Return the log-probabilities (nats) of the token after `tokens`, `[vocab_size]`."""
        logits = self.prefill(tokens, self.open()).astype(np.float64)
        found: NDArray[np.float32] = (logits - np.logaddexp.reduce(logits)).astype(np.float32)
        return found

    def generate(self, prompt: Sequence[int], max_tokens: int) -> Generated:
        """Return `max_tokens` tokens after `prompt`, chosen greedily."""
        start = time.perf_counter()
        cache = self.open()
        found = [int(self.prefill(prompt, cache).argmax())]
        first = time.perf_counter()
        while len(found) < max_tokens:
            found.append(int(self.decode(found[-1:], [cache])[0].argmax()))
        return Generated(tuple(found), first - start, time.perf_counter() - first)

    def about(self) -> About:
        """Return what the model is made of."""
        weights = self._decoder.weights
        inside = [weights.head, *(matrix for block in weights.blocks for matrix in block.matrices.values())]
        read = sum(matrix.nbytes for matrix in inside)
        apart = 0 if weights.embed is weights.head else weights.embed.nbytes
        counted = Counter((matrix.rows, matrix.columns, NAMES[matrix.kind]) for matrix in inside)
        return About(
            self._decoder.isa,
            read + apart,
            read,
            tuple((*shape, count) for shape, count in counted.items()),
            self._timed,
        )

    def memory(self) -> Memory:
        """Return the memory of this process."""
        return process_memory()
