"""The state of one request during its answer: tokens, cache, text."""

from __future__ import annotations

import time

from secateur_runtime.server.engine.detokenizer import Decode, Writer
from secateur_runtime.server.engine.job import AnswerPiece, GenerationJob
from secateur_runtime.server.engine.memory_controller import Load
from secateur_runtime.server.engine.sampling import Logits, Sampler
from secateur_runtime.server.engine.step_model import SequenceCache, StepModel
from secateur_runtime.server.refusals import RefusedError


class RunningSequence:
    """A job and its progress.

    A sequence that lost its cache is read again from the start and continues with the next token.
    done: tokens that are in the cache.
    """

    def __init__(self, job: GenerationJob, decode: Decode) -> None:
        self.job = job
        self.tokens = list(job.asked.prompt)
        self.done = 0
        self.finished = False
        self.cache: SequenceCache | None = None
        self._sampler = Sampler(job.asked.sampling)
        self._writer = Writer(decode, job.asked.stops, job.asked.prompt)
        self.first: float | None = None

    @property
    def made(self) -> int:
        """Tokens of the answer so far."""
        return len(self.tokens) - len(self.job.asked.prompt)

    @property
    def load(self) -> Load:
        """Tokens that the sequence holds now and at most at its end."""
        return Load(len(self.tokens), self.job.total)

    @property
    def ready(self) -> bool:
        """Whether all tokens but the last are in the cache, so that it can be decoded with others."""
        return self.cache is not None and self.done == len(self.tokens) - 1

    def prefill(self, model: StepModel, chunk: int) -> int:
        """Read at most `chunk` tokens into the cache, and choose the next token if those were the last.

        Returns the number of tokens read.
        """
        if self.cache is None:
            self.cache = model.open(self.job.total)
        part = self.tokens[self.done : self.done + chunk]
        logits = model.prefill(part, self.cache)
        self.done += len(part)
        if self.done == len(self.tokens):
            self.take(logits)
        return len(part)

    def take(self, logits: Logits) -> None:
        """Choose the next token from the logits after all tokens so far, and hand it over."""
        self.done = len(self.tokens)
        self.first = self.first or time.monotonic()
        chosen = self._sampler.choose(logits)
        if chosen.token in self.job.asked.ends:
            self._end(AnswerPiece(self._writer.finish(), (), "stop"))
            return
        self.tokens.append(chosen.token)
        text = self._writer.add(chosen.token)
        full = self.made == self.job.asked.limit
        text += self._writer.finish() if full else ""
        if full or self._writer.stopped:
            self._end(AnswerPiece(text, (chosen,), "stop" if self._writer.stopped else "length"))
        else:
            self.job.tell(AnswerPiece(text, (chosen,)))

    def refuse(self, error: RefusedError) -> None:
        """End the sequence with an error."""
        self.finished = True
        self.job.tell(error)

    def drop_cache(self) -> None:
        """Release the memory of the cache."""
        if self.cache is not None:
            self.cache.close()
        self.cache = None
        self.done = 0

    def _end(self, piece: AnswerPiece) -> None:
        self.finished = True
        self.job.tell(piece)
