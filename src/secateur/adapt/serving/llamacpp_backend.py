"""An Engine over a GGUF file in llama.cpp, which does its own batching."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psutil

from secateur.runtime.llamacpp import LlamaCpp, require_llamacpp
from secateur_runtime.errors import SecateurError
from secateur_runtime.sensors import Senses
from secateur_runtime.server.engine.admission import Limits
from secateur_runtime.server.engine.detokenizer import Stops
from secateur_runtime.server.engine.job import AnswerPiece, GenerationJob, State
from secateur_runtime.server.engine.sampling import Chosen, Sampling
from secateur_runtime.server.engine.throughput import Rate
from secateur_runtime.server.refusals import RefusedError

_BATCH = 4
"""Most requests at once: llama.cpp allocates the whole KV cache of each at the start."""


class LlamaEngine:
    """Answers with llama.cpp; all memory is allocated at the start, and there is one level.

    context: most tokens of a request. vocabulary: number of tokens that the model knows.
    """

    name = "llama.cpp"

    def __init__(
        self, path: str, *, context: int, vocabulary: int, threads: int, limits: Limits, senses: Senses
    ) -> None:
        require_llamacpp("--backend llamacpp")
        self.context = context
        self.vocabulary = vocabulary
        self._limits = limits
        self._senses = senses
        parallel = min(limits.batch, _BATCH)
        self._model = LlamaCpp(path, context=context, threads=threads, parallel=parallel)
        self._pool = ThreadPoolExecutor(parallel, thread_name_prefix="llama")
        self._lock = threading.Lock()
        self._stopping = False
        self._waiting = 0
        self._running = 0
        self._prompt_tokens = 0
        self._answers = Rate()
        self._process = psutil.Process()

    def submit(self, job: GenerationJob) -> None:
        """Accept a job; raises RefusedError with 429 if too many wait."""
        with self._lock:
            if self._stopping:
                raise RefusedError(503, "the server is stopping")
            if self._waiting >= self._limits.queue:
                raise RefusedError(429, f"{self._limits.queue} requests wait already: try again later")
            self._waiting += 1
        self._pool.submit(self._answer, job)

    def cancel(self, job: GenerationJob) -> None:
        """Drop a job when its next token comes."""
        job.cancelled.set()

    def state(self) -> State:
        """Return the figures for the page and the metrics."""
        sensed = self._senses()
        tightest = sensed.tightest
        return State(
            process=self._process.memory_info().rss,
            limit=tightest.limit if tightest else None,
            free=tightest.free if tightest else None,
            bound=tightest.name if tightest else "",
            stalled=sensed.stalled,
            running=self._running,
            waiting=self._waiting,
            prompt_tokens=self._prompt_tokens,
            answer_tokens=self._answers.total,
            rate=self._answers.now(),
        )

    def healthy(self) -> bool:
        """Return whether the engine can still answer."""
        return not self._stopping

    def stop(self) -> None:
        """Stop; unfinished jobs are refused."""
        self._stopping = True
        self._pool.shutdown(cancel_futures=True)

    def _answer(self, job: GenerationJob) -> None:
        with self._lock:
            self._waiting = self._waiting - 1
            self._running = self._running + 1
        try:
            if time.monotonic() - job.arrived > self._limits.wait:
                raise RefusedError(429, "the server was busy for too long: try again later")
            for piece in self._pieces(job):
                job.tell(piece)
        except RefusedError as error:
            job.tell(error)
        except (SecateurError, OSError) as error:
            job.tell(RefusedError(500, str(error)))
        finally:
            with self._lock:
                self._running -= 1

    def _pieces(self, job: GenerationJob) -> Iterator[AnswerPiece]:
        """Yield the pieces of an answer; raises RefusedError if it cannot continue."""
        stops = Stops(job.asked.stops)
        before = 0
        with closing(
            self._model.stream(job.asked.prompt, **options(job.asked.sampling, job.asked.limit))
        ) as told:
            for row in told:
                if job.cancelled.is_set():
                    return
                if self._stopping or time.monotonic() > job.deadline:
                    raise RefusedError(
                        503 if self._stopping else 504,
                        "the server is stopping" if self._stopping else "the answer took too long",
                    )
                if "error" in row:
                    raise RefusedError(500, str(row["error"].get("message", "llama.cpp failed")))
                self._prompt_tokens += 0 if before else row["tokens_evaluated"]
                piece = piece_of(row, stops, before, probable=job.asked.sampling.logprobs is not None)
                self._answers.add(piece.made)
                before = row["tokens_predicted"]
                yield piece
                if piece.finish:
                    return


def options(sampling: Sampling, limit: int) -> Mapping[str, Any]:
    """Return the options of llama.cpp for a way of sampling, with its other defaults turned off."""
    return {
        "n_predict": limit,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": 0,
        "min_p": 0.0,
        "repeat_penalty": 1.0,
        "frequency_penalty": sampling.frequency,
        "presence_penalty": sampling.presence,
        "repeat_last_n": limit,
        "logit_bias": [[token, bias] for token, bias in sampling.bias.items()],
        "n_probs": 0 if sampling.logprobs is None else max(1, sampling.logprobs),
        **({} if sampling.seed is None else {"seed": sampling.seed % (2**32 - 1)}),
    }


def piece_of(row: Mapping[str, Any], stops: Stops, before: int, *, probable: bool) -> AnswerPiece:
    """Return the piece in one message of llama.cpp.

    before: tokens reported so far. probable: whether probabilities were asked for.
    """
    last = bool(row["stop"])
    text = stops.pass_on(row["content"], last=last)
    chosen = (
        tuple(map(_chosen, row.get("completion_probabilities", ())))
        if probable
        else tuple(Chosen(int(token)) for token in row["tokens"])
    )
    finish = (
        "stop" if stops.stopped or (last and row.get("stop_type") != "limit") else "length" if last else ""
    )
    return AnswerPiece(text, chosen, finish, max(0, row["tokens_predicted"] - before - len(chosen)))


def _chosen(each: Mapping[str, Any]) -> Chosen:
    return Chosen(
        int(each["id"]),
        float(each["logprob"]),
        tuple((int(top["id"]), float(top["logprob"])) for top in each["top_logprobs"]),
    )
