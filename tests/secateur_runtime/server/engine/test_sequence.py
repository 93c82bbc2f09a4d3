"""One sequence over the fake model: read in chunks, and read again after its cache is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tests.secateur_runtime.server.fakes import FakeModel, continued, logits_after

from secateur_runtime.server.engine.job import GenerationJob, GenerationRequest
from secateur_runtime.server.engine.memory_controller import Load
from secateur_runtime.server.engine.sampling import Sampling
from secateur_runtime.server.engine.sequence import RunningSequence

PROMPT = (5, 9, 30, 7, 11)


def _decode(tokens: Sequence[int]) -> str:
    return "".join(f"<{token}>" for token in tokens)


def _sequence(limit: int, ends: frozenset[int] = frozenset(), stops: tuple[str, ...] = ()) -> RunningSequence:
    async def made() -> GenerationJob:
        request = GenerationRequest(
            prompt=PROMPT, limit=limit, ends=ends, stops=stops, sampling=Sampling(temperature=0)
        )
        return GenerationJob(request, seconds=60)

    return RunningSequence(asyncio.run(made()), _decode)


def _finish(sequence: RunningSequence) -> list[int]:
    while not sequence.finished:
        sequence.take(logits_after(sequence.tokens))
    return sequence.tokens[len(PROMPT) :]


def test_a_prompt_is_read_in_chunks_and_then_a_token_is_chosen() -> None:
    model, sequence = FakeModel(), _sequence(3)
    assert [sequence.prefill(model, 2) for _ in range(3)] == [2, 2, 1]
    assert model.chunks == [2, 2, 1]
    assert sequence.tokens == [*PROMPT, *continued(PROMPT, 1)]
    assert (sequence.made, sequence.ready, sequence.load) == (1, True, Load(6, 8))
    assert _finish(sequence) == continued(PROMPT, 3)


def test_a_sequence_that_lost_its_cache_continues_with_the_next_token() -> None:
    model, sequence = FakeModel(), _sequence(4)
    sequence.prefill(model, 10)
    sequence.drop_cache()
    assert model.opened[0].closed
    assert (sequence.ready, sequence.done) == (False, 0)
    sequence.prefill(model, 10)
    assert sequence.tokens == [*PROMPT, *continued(PROMPT, 2)]


def test_an_end_token_is_no_part_of_the_answer() -> None:
    answer = continued(PROMPT, 3)
    assert _finish(_sequence(10, frozenset({answer[2]}))) == answer[:2]


def test_a_stop_string_ends_the_answer() -> None:
    answer = continued(PROMPT, 3)
    assert _finish(_sequence(10, stops=(_decode(answer[1:2]),))) == answer[:2]
