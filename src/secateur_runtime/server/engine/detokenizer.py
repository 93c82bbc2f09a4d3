"""Turn tokens into text as they come: only whole characters, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]
_UNFINISHED = "\ufffd"
_LONGEST_CHARACTER = 4
"""Most tokens of one character: UTF-8 has as many bytes."""


class Stops:
    """Text on its way to a client, up to the first stop string.

    stopped: whether a stop string is complete.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.stopped = False

    def pass_on(self, fresh: str, *, last: bool = False) -> str:
        """Return the new text that certainly comes before every stop string.

        fresh: text that was added. last: whether nothing follows.
        """
        if self.stopped:
            return ""
        text = self._held + fresh
        ends = [place + len(stop) for stop in self._stops if (place := text.find(stop)) >= 0]
        if ends:
            self.stopped = True
            self._held = ""
            read = text[: min(ends)]
            return read[: min(place for stop in self._stops if (place := read.find(stop)) >= 0)]
        keep = 0 if last else max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


class Writer:
    """The text of one answer.

    decode: turns tokens into text. stops: strings that end the answer and are not part of it. prompt: tokens
    before the answer; the last ones decide whether its first token begins with a space.
    """

    def __init__(self, decode: Decode, stops: Sequence[str] = (), prompt: Sequence[int] = ()) -> None:
        self._decode = decode
        self._stops = Stops(stops)
        self._tokens = list(prompt[-_LONGEST_CHARACTER:])
        self._before = 0
        self._read = len(self._tokens)

    @property
    def stopped(self) -> bool:
        """Whether a stop string is complete."""
        return self._stops.stopped

    def add(self, token: int) -> str:
        """Add a token; return the text that is certain now."""
        self._tokens.append(token)
        return self._stops.pass_on(self._fresh(last=False))

    def finish(self) -> str:
        """Return the text that was held back, because nothing follows."""
        return self._stops.pass_on(self._fresh(last=True), last=True)

    def _fresh(self, *, last: bool) -> str:
        """Return the text of the new tokens, empty while a character is incomplete.

        A few earlier tokens are decoded too, because some tokenizers write the first token differently.
        """
        known = self._decode(self._tokens[self._before : self._read])
        text = self._decode(self._tokens[self._before :])
        waited = len(self._tokens) - self._read
        if text.endswith(_UNFINISHED) and not last and waited < _LONGEST_CHARACTER:
            return ""
        self._before = self._read
        self._read = len(self._tokens)
        return text[len(known) :]


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of `text` may begin `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((count for count in range(longest, 0, -1) if text.endswith(stop[:count])), 0)
