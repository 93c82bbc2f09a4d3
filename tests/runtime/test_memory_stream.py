"""Memory as a backend: it reads all its bytes for each answer."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from secateur.runtime import memory_stream
from secateur.runtime.memory_stream import Stream
from secateur_runtime.kernels.library import kernels
from secateur_runtime.kernels.thread_pool import ThreadPool


def test_an_answer_is_one_pass_over_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    library = kernels()
    if library is None:
        pytest.skip("no C compiler, so no kernels")
    monkeypatch.setattr(memory_stream, "SIZE", 1 << 16)
    read: list[int] = []
    pool = ThreadPool(library, 1)
    whole = pool.read

    def counted(self: ThreadPool, words: NDArray[np.uint64]) -> int:
        read.append(words.nbytes)
        return whole(words)

    monkeypatch.setattr(ThreadPool, "read", counted)
    stream = Stream(pool)
    answer = stream.generate([0], 32)
    assert read == [1 << 16], "once, whatever the number of tokens"
    assert answer.tokens == ()
    assert answer.rest > 0
    assert stream.logprobs([1, 2]).dtype == np.float32
    assert stream.memory().resident > 1 << 20
