"""Counts of tokens, and their rate over the last seconds."""

from __future__ import annotations

import threading

import pytest

from secateur_runtime.server.engine.throughput import Rate


def test_the_rate_forgets_what_is_older_than_its_window(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    rate = Rate()
    assert (rate.now(), rate.total) == (0, 0)
    rate.add(6)
    clock[0] = 101.0
    rate.add(2)
    assert rate.now() == 4
    clock[0] = 102.5
    assert (rate.now(), rate.total) == (1, 8)


def test_threads_lose_no_count() -> None:
    rate = Rate()

    def count() -> None:
        for _ in range(500):
            rate.add(1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rate.total == 2000
