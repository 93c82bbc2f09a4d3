"""The answering side of an isolated backend, served in a thread of this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from secateur.runtime.isolated_child import serve
from secateur_runtime.errors import UsageError


class Doubling:
    """A backend of one method."""

    def __init__(self, most: int) -> None:
        self._most = most

    def double(self, number: int) -> int:
        if number > self._most:
            raise UsageError(f"{number} is more than {self._most}")
        return 2 * number


@pytest.fixture
def asked() -> Iterator[Connection]:
    """The asking end; the other one serves until this one is closed."""
    ours, theirs = Pipe()
    server = threading.Thread(target=serve, args=(theirs,))
    server.start()
    yield ours
    ours.close()
    server.join(10)
    assert not server.is_alive(), "it ends with its parent"


def test_the_first_message_makes_the_backend(asked: Connection) -> None:
    asked.send((f"{__name__}:Doubling", {"most": 4}))
    assert asked.recv() is None
    asked.send(("double", 3))
    assert asked.recv() == 6


def test_an_error_of_the_user_is_an_answer(asked: Connection) -> None:
    asked.send((f"{__name__}:Doubling", {"most": 4}))
    asked.recv()
    asked.send(("double", 9))
    error = asked.recv()
    assert isinstance(error, UsageError)
    assert str(error) == "9 is more than 4"
    asked.send(("double", 1))
    assert asked.recv() == 2


def test_it_is_the_module_that_isolated_starts() -> None:
    from secateur.runtime import isolated, isolated_child

    assert isolated_child.__name__ == isolated.CHILD
    assert Path(isolated_child.__file__).is_file()
