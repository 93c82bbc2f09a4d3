"""Metrics for Prometheus."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from secateur_runtime.sensors.gpu import Gpus
from secateur_runtime.server.engine.job import AnswerPiece, Engine, GenerationJob
from secateur_runtime.server.refusals import RefusedError

_SHORT = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_LONG = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120)


class Metrics:
    """Counts requests as they pass, and reads the rest from the engine when the metrics are read."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, engine: Engine) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Engine(engine))
        self._requests = Counter(
            "secateur_requests",
            "Answers by endpoint and how they ended.",
            ["endpoint", "outcome"],
            registry=self._registry,
        )
        self._first = Histogram(
            "secateur_first_token_seconds",
            "From the request to the first token.",
            buckets=_LONG,
            registry=self._registry,
        )
        self._between = Histogram(
            "secateur_token_seconds",
            "From one piece of an answer to the next.",
            buckets=_SHORT,
            registry=self._registry,
        )

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry)

    async def watched(self, job: GenerationJob, endpoint: str) -> AsyncIterator[AnswerPiece]:
        """Yield the pieces of a job to its end, and record times and outcome."""
        last = 0.0
        outcome = "cancelled"
        try:
            while True:
                piece = await job.next()
                now = time.monotonic()
                (self._between if last else self._first).observe(now - (last or job.arrived))
                last = now
                if piece.finish:
                    outcome = piece.finish
                yield piece
                if piece.finish:
                    return
        except RefusedError as error:
            outcome = str(error.status)
            raise
        finally:
            self._requests.labels(endpoint, outcome).inc()


class _Engine(Collector):
    """The metrics that an engine keeps itself."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._gpus = Gpus()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""
        state = self._engine.state()
        memory = GaugeMetricFamily(
            "secateur_memory_bytes",
            "Bytes of weights, KV cache and process; limit and free of the tightest bound.",
            labels=["kind"],
        )
        for kind in ("weights", "cache", "process", "limit", "free"):
            if (value := getattr(state, kind)) is not None:
                memory.add_metric([kind], value)
        yield memory
        yield GaugeMetricFamily("secateur_level", "Level of the ladder, 0 for the whole model.", state.level)
        yield GaugeMetricFamily("secateur_levels", "Number of levels.", state.levels)
        yield GaugeMetricFamily(
            "secateur_memory_stalled_ratio",
            "Share of the last 10 s in which some task waited for memory.",
            state.stalled,
        )
        yield GaugeMetricFamily(
            "secateur_decision_seconds", "Time of the last decision of the policy.", state.decide_seconds
        )
        yield GaugeMetricFamily(
            "secateur_change_seconds", "Time of the last change of level.", state.change_seconds
        )
        jobs = GaugeMetricFamily("secateur_jobs", "Requests under way.", labels=["state"])
        jobs.add_metric(["running"], state.running)
        jobs.add_metric(["waiting"], state.waiting)
        yield jobs
        decisions = CounterMetricFamily(
            "secateur_decisions",
            "Changes of level (shrink, restore), and requests put back for lack of memory.",
            labels=["way"],
        )
        counts = {"shrink": state.shrinks, "restore": state.restores, "put_back": state.put_back}
        for way, count in counts.items():
            decisions.add_metric([way], count)
        yield decisions
        tokens = CounterMetricFamily(
            "secateur_tokens", "Tokens of prompts read and of answers made.", labels=["kind"]
        )
        tokens.add_metric(["prompt"], state.prompt_tokens)
        tokens.add_metric(["answer"], state.answer_tokens)
        yield tokens
        yield from self._graphics()

    def _graphics(self) -> Iterator[Metric]:
        found = self._gpus()
        if found:
            graphics = GaugeMetricFamily(
                "secateur_gpu_memory_bytes", "Memory of each GPU.", labels=["gpu", "kind"]
            )
            for index, gpu in enumerate(found):
                graphics.add_metric([f"{index} {gpu.name}", "total"], gpu.total)
                graphics.add_metric([f"{index} {gpu.name}", "used"], gpu.used)
            yield graphics
