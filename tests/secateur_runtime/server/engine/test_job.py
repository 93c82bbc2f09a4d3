"""Jobs: pieces from another thread, in order, and refusals."""

from __future__ import annotations

import asyncio
import threading

import pytest

from secateur_runtime.server.engine.job import AnswerPiece, GenerationJob, GenerationRequest
from secateur_runtime.server.engine.sampling import Chosen
from secateur_runtime.server.refusals import RefusedError

ASKED = GenerationRequest(prompt=(1, 2, 3), limit=7)


def test_pieces_of_another_thread_come_in_order_and_then_the_refusal() -> None:
    async def run() -> None:
        job = GenerationJob(ASKED, seconds=5)

        def work() -> None:
            for text in "abc":
                job.tell(AnswerPiece(text))
            job.tell(RefusedError(504, "too late"))

        thread = threading.Thread(target=work)
        thread.start()
        assert [(await job.next()).text for _ in range(3)] == ["a", "b", "c"]
        with pytest.raises(RefusedError, match="too late"):
            await job.next()
        thread.join()

    asyncio.run(run())


def test_a_job_counts_prompt_and_answer_and_has_a_deadline_and_a_number() -> None:
    async def run() -> tuple[GenerationJob, GenerationJob]:
        return GenerationJob(ASKED, seconds=5), GenerationJob(ASKED, seconds=5)

    first, second = asyncio.run(run())
    assert first.total == 10
    assert first.deadline - first.arrived == 5
    assert second.number == first.number + 1
    first.tell(AnswerPiece("lost"))
    assert first._pieces.empty(), "the loop is closed"


def test_a_piece_counts_hidden_tokens_too() -> None:
    assert AnswerPiece("ab", (Chosen(1), Chosen(2)), hidden=3).made == 5
