"""The process behind `Isolated`: makes a backend, then answers calls until its parent is gone."""

from __future__ import annotations

import importlib
import sys
from multiprocessing.connection import Connection
from typing import Any

from secateur.runtime.process import forget_peak
from secateur_runtime.errors import SecateurError


def serve(connection: Connection) -> None:
    """Answer each message `(method, *arguments)`.

    The first one is `(module:function, options)` and makes the backend.
    """
    backend: Any = None
    while True:
        try:
            method, *arguments = connection.recv()
        except EOFError:
            return
        try:
            if backend is None:
                module, _, function = method.partition(":")
                backend = getattr(importlib.import_module(module), function)(**arguments[0])
                forget_peak()
                answer = None
            else:
                answer = getattr(backend, method)(*arguments)
        except SecateurError as error:
            answer = error
        connection.send(answer)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
