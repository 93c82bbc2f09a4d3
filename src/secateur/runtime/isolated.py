"""A backend in a process of its own.

Its memory is counted alone, and a runtime that aborts does not take the command with it.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.runtime import Generated, Memory
from secateur_runtime.errors import SecateurError, SourceError, VerificationError

CHILD = "secateur.runtime.isolated_child"


class Isolated:
    """A Backend in a child process, made there by calling `factory` with `options`.

    factory: `module:function`. Its SecateurErrors are raised here.
    A context manager: the child ends with it. Raises VerificationError if the child dies instead of
    answering.
    """

    def __init__(self, name: str, factory: str, options: Mapping[str, Any]) -> None:
        self.name = name
        ours, theirs = socket.socketpair()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        with theirs:
            command = [sys.executable, "-m", CHILD, str(theirs.fileno())]
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdout=self._log,
                stderr=self._log,
                stdin=subprocess.DEVNULL,
            )
        self._connection = Connection(ours.detach())
        try:
            self._call(factory, dict(options))
        # An interrupt too ends the child.
        except BaseException as error:
            printed = self._printed()
            self.__exit__()
            if isinstance(error, SourceError):
                raise SourceError(f"{error}: {printed}") from None
            raise

    def __enter__(self) -> Isolated:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()
        self._process.wait()
        self._log.close()

    def logprobs(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Return the log-probabilities (nats) of the token after `tokens`, `[vocab_size]`."""
        found: NDArray[np.float32] = self._call("logprobs", [int(token) for token in tokens])
        return found

    def generate(self, prompt: Sequence[int], max_tokens: int) -> Generated:
        """Return `max_tokens` tokens after `prompt`, chosen greedily."""
        found: Generated = self._call("generate", [int(token) for token in prompt], max_tokens)
        return found

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of `text` by the runtime's own tokenizer."""
        found: list[int] = self._call("tokenize", text)
        return found

    def about(self) -> Any:
        """Return what the backend says about the loaded model, if it has `about`."""
        return self._call("about")

    def memory(self) -> Memory:
        """Return the memory of the child process."""
        found: Memory = self._call("memory")
        return found

    def _call(self, *message: Any) -> Any:
        try:
            self._connection.send(message)
            answer = self._connection.recv()
        except (EOFError, OSError):
            raise VerificationError(
                f"{self.name} stopped without an answer (exit {self._process.wait()}): {self._printed()}"
            ) from None
        if isinstance(answer, SecateurError):
            raise answer
        return answer

    def _printed(self) -> str:
        """Return the most telling line of the child's output: the first error, or else the last line."""
        self._log.seek(0)
        lines = [
            line.strip() for line in self._log.read().decode("utf-8", "replace").splitlines() if line.strip()
        ]
        first = next((line for line in lines if " E " in line or "ASSERT" in line), "")
        # Without the time, the level, and the folder that llama.cpp was built in.
        return re.sub(r"^[\d.]+ E |^\S*/", "", first or (lines or ["no message"])[-1])
