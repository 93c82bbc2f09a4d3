"""Metrics in the text of Prometheus, from a state and from finished jobs."""

from __future__ import annotations

import asyncio

import pytest

from secateur_runtime.server.engine.job import AnswerPiece, Engine, GenerationJob, GenerationRequest, State
from secateur_runtime.server.http.metrics import Metrics
from secateur_runtime.server.refusals import RefusedError

STATE = State(
    level=2, levels=4, weights=10, cache=3, process=20, shrinks=5, restores=1, put_back=7, running=2
)


class _Engine:
    """An engine that reports one state."""

    name = "still"
    context = vocabulary = 1

    def submit(self, job: GenerationJob) -> None:
        raise AssertionError

    def cancel(self, job: GenerationJob) -> None:
        raise AssertionError

    def state(self) -> State:
        return STATE

    def healthy(self) -> bool:
        return True

    def stop(self) -> None:
        pass


def _rows(metrics: Metrics) -> dict[str, float]:
    lines = (line for line in metrics.text().decode().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_the_state_is_exported_by_name() -> None:
    engine: Engine = _Engine()
    rows = _rows(Metrics(engine))
    assert (rows["secateur_level"], rows["secateur_levels"]) == (2, 4)
    ways = {
        way: rows[f'secateur_decisions_total{{way="{way}"}}'] for way in ("shrink", "restore", "put_back")
    }
    assert ways == {"shrink": 5, "restore": 1, "put_back": 7}
    assert rows['secateur_memory_bytes{kind="weights"}'] == 10
    assert 'secateur_memory_bytes{kind="limit"}' not in rows, "there is no bound"
    assert rows['secateur_jobs{state="running"}'] == 2


@pytest.mark.parametrize("outcome", ["stop", "504"])
def test_an_answer_counts_once_by_its_outcome(outcome: str) -> None:
    metrics = Metrics(_Engine())

    async def run() -> int:
        job = GenerationJob(GenerationRequest(prompt=(1,), limit=3), seconds=5)
        job.tell(AnswerPiece("a"))
        job.tell(AnswerPiece("b", finish="stop") if outcome == "stop" else RefusedError(504, "late"))
        seen = 0
        try:
            async for _ in metrics.watched(job, "/v1/completions"):
                seen += 1
        except RefusedError:
            assert outcome == "504"
        return seen

    assert asyncio.run(run()) == (2 if outcome == "stop" else 1)
    rows = _rows(metrics)
    assert rows[f'secateur_requests_total{{endpoint="/v1/completions",outcome="{outcome}"}}'] == 1
    assert rows["secateur_first_token_seconds_count"] == 1
    assert rows["secateur_token_seconds_count"] == (1 if outcome == "stop" else 0)
