"""A server that records every step of its model, and a replay of these steps, one request at a time.

    python benchmarks/recorded.py FILE serve smollm2-135m ...

Runs as `secateur serve`, with a line of JSON in FILE for every step. A client's answer is right if each token
sent is the likeliest for the model, taken through the same levels at the same moments: `replay` does that.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from secateur.core.process_memory import spare_the_machine


class Recorded:
    """Stands before a Stepped, and writes down what is asked of it."""

    def __init__(self, model: Any, file: TextIO) -> None:
        self._model = model
        self._file = file

    def __getattr__(self, name: str) -> Any:
        """Whatever changes nothing is the model's own."""
        return getattr(self._model, name)

    def set_units(self, units: Sequence[str]) -> None:
        """Record what is gone from now on."""
        self._model.set_units(units)
        self._say(units=list(units))

    def open(self, limit: int) -> Any:
        """Record which cache begins."""
        cache = self._model.open(limit)
        self._say(open=id(cache), limit=limit)
        return cache

    def prefill(self, tokens: Sequence[int], cache: Any) -> Any:
        """Record what a cache reads."""
        found = self._model.prefill(tokens, cache)
        self._say(prefill=[[id(cache), list(tokens)]])
        return found

    def decode(self, tokens: Sequence[int], caches: Sequence[Any]) -> Any:
        """Record what every cache reads."""
        found = self._model.decode(tokens, caches)
        self._say(decode=[[id(cache), [token]] for token, cache in zip(tokens, caches, strict=True)])
        return found

    def _say(self, **row: Any) -> None:
        self._file.write(json.dumps(row) + "\n")


@dataclass(frozen=True)
class Life:
    """What happened while one cache was open, in order.

    `units` that were gone from then on, tokens of a `prefill`, the token of a `decode`.
    """

    limit: int
    begun: tuple[str, ...]
    events: list[tuple[str, list[Any]]]

    @property
    def tokens(self) -> list[int]:
        """All that it read."""
        return [token for kind, what in self.events if kind != "units" for token in what]

    @property
    def changes(self) -> int:
        """How often the level changed between its first token and its last."""
        last = max((place for place, (kind, _) in enumerate(self.events) if kind != "units"), default=0)
        return sum(kind == "units" for kind, _ in self.events[:last])


def lives(path: Path) -> list[Life]:
    """Return the life of every cache of a recording, those that read nothing left out."""
    found = list[Life]()
    live = dict[int, Life]()
    units = list[str]()
    for line in path.read_text(encoding="utf-8").splitlines():
        (kind, what), *_ = row = list(json.loads(line).items())
        if kind == "units":
            units = what
            for life in live.values():
                life.events.append((kind, units))
        elif kind == "open":
            # An address is used again only once its cache is gone.
            live[what] = Life(row[1][1], tuple(units), [])
            found.append(live[what])
        else:
            for cache, tokens in what:
                live[cache].events.append((kind, tokens))
    return [life for life in found if life.tokens]


def replay(model: Any, life: Life) -> tuple[list[float], int]:
    """Replay one request alone.

    Return how far the logit of each token that was chosen and read is below the highest, and the likeliest
    token after the last.
    """
    model.set_units(life.begun)
    logits = None
    below = list[float]()
    cache = model.open(life.limit)
    for kind, what in life.events:
        if kind == "units":
            model.set_units(what)
            continue
        if kind == "decode":
            below.append(float(logits.max() - logits[what[0]]))
        logits = model.prefill(what, cache)
    cache.close()
    return below, int(logits.argmax())


def main() -> None:
    """Serve, with a recorder in front of the model."""
    spare_the_machine()
    from secateur.adapt.serving import elastic_backend
    from secateur.cli.main import run

    # Line by line: a server that is killed, or ended by a signal, closes nothing.
    file = Path(sys.argv[1]).open("w", encoding="utf-8", buffering=1)  # noqa: SIM115
    make: Callable[..., Any] = elastic_backend.make_elastic

    def made(*arguments: Any) -> Any:
        model, choices, policy = make(*arguments)
        return Recorded(model, file), choices, policy

    elastic_backend.make_elastic = made
    sys.argv = [sys.argv[0], *sys.argv[2:]]
    try:
        run()
    finally:
        file.close()


if __name__ == "__main__":
    main()
