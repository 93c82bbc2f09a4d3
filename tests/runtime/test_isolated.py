"""A backend in a process of its own: what it answers, and what is left of one that dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from secateur.runtime import Generated, Memory
from secateur.runtime.isolated import Isolated
from secateur_runtime.errors import SourceError, UsageError, VerificationError

HERE = "tests.runtime.test_isolated"


class Dying:
    """A backend that prints, and dies when it is asked."""

    name = "dying"

    def __init__(self, words: str) -> None:
        print(words, flush=True)

    def generate(self, prompt: Sequence[int], max_tokens: int) -> Generated:
        os.kill(os.getpid(), signal.SIGKILL)
        return Generated(tuple(prompt), 0.0, float(max_tokens))


def test_a_runtime_that_aborts_is_one_line() -> None:
    words, message = (
        "/a/b/ggml.c:12: GGML_ASSERT(x) failed",
        r"dying stopped without an answer \(exit -9\): ggml.c:12: GGML_ASSERT\(x\) failed",
    )
    with (
        Isolated("dying", f"{HERE}:Dying", {"words": words}) as backend,
        pytest.raises(VerificationError, match=message),
    ):
        backend.generate([1], 2)


class Counting:
    """A backend that predicts what it is asked."""

    name = "counting"

    def __init__(self, size: int) -> None:
        if size < 1:
            raise SourceError("no tokens at all")
        self._size = size

    def logprobs(self, tokens: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
        if max(tokens) >= self._size:
            raise UsageError(f"token {max(tokens)} is none of {self._size}")
        return np.log(np.full(self._size, 1 / self._size, np.float32))

    def generate(self, prompt: Sequence[int], max_tokens: int) -> Generated:
        return Generated(tuple(range(max_tokens)), float(os.getpid()), float(len(prompt)))

    def tokenize(self, text: str) -> list[int]:
        return list(text.encode())

    def about(self) -> int:
        return self._size

    def memory(self) -> Memory:
        return Memory(1, 2, 3)


def test_answers_cross_the_process() -> None:
    with Isolated("counting", f"{HERE}:Counting", {"size": 4}) as backend:
        np.testing.assert_allclose(np.exp(backend.logprobs([1, 3])), [0.25] * 4)
        answer = backend.generate([1, 2, 3], 2)
        assert (answer.tokens, answer.rest) == ((0, 1), 3.0)
        assert answer.first != os.getpid(), "another process"
        assert backend.tokenize("ab") == [97, 98]
        assert (backend.about(), backend.memory()) == (4, Memory(1, 2, 3))
        with pytest.raises(UsageError, match=r"^token 9 is none of 4$"):
            backend.logprobs([9])
        assert backend.about() == 4, "an error does not end it"


def test_a_factory_that_fails_is_raised_with_what_was_printed() -> None:
    with pytest.raises(SourceError, match=r"^no tokens at all: no message$"):
        Isolated("counting", f"{HERE}:Counting", {"size": 0})
