"""Does a server survive while its memory limit falls, with no change that clients see but the words?

    python benchmarks/squeeze.py [--seconds 300] [--clients 8] [--model smollm2-135m] [-o out/squeeze]
                                 [-- options of secateur serve]

A server runs in a control group of its own. First it runs under load without a limit: the most memory that it
takes is the dense need. Then it is started again under a real limit that falls to 80 % and to 60 % of that
need and rises again, while clients stream; then once more with the policy `none`. The result is one picture.
Needs the right to make a control group (root).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import torch

from group import Group
from recorded import lives, replay
from secateur.adapt.serving.elastic_backend import NATIVE, Elasticity, make_elastic
from secateur.core.progress import Silent
from secateur.model.handle import open_model
from squeeze_chart import draw

_EVERY = 0.25
_STEP = 0.1
_FALL = 20.0
"""Seconds in which the limit falls by a fifth of the need."""
_SLACK = 1.05
"""Times the need, the limit before it falls."""
_SPECIAL = re.compile(r"<[|\w]+>")
_WORDS = (
    "The gardener takes the branches that bear no fruit, so that the light reaches those that do; too much at"
    " once and the tree dies. "
)


@dataclass
class Stream:
    """One answer as a client saw it; `wrong` says what was not as it must be."""

    client: int
    started: float
    seconds: float = 0.0
    first: float = 0.0
    tokens: int = 0
    finish: str = ""
    wrong: str = ""
    prompt: str = ""
    text: str = ""


@dataclass
class Run:
    """A server from start to end: what was sampled, what clients got, and how it ended."""

    policy: str
    samples: list[dict[str, Any]] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    kills: int = 0
    exit_code: int | None = None
    engine_tokens: int = 0

    @property
    def peak(self) -> int:
        """The most bytes that were held."""
        return max(sample["used"] for sample in self.samples)

    def summary(self) -> dict[str, Any]:
        """Return what matters."""
        good = [stream for stream in self.streams if not stream.wrong]
        levels = [sample["level"] for sample in self.samples if sample["level"] is not None]
        return {
            "policy": self.policy,
            "answers": len(self.streams),
            "whole": len(good),
            "wrong": sorted({stream.wrong for stream in self.streams if stream.wrong})[:5],
            "tokens": sum(stream.tokens for stream in good),
            "engine_tokens": self.engine_tokens,
            "oom_kills": self.kills,
            "exit_code": self.exit_code,
            "peak": self.peak,
            "levels": [min(levels, default=0), max(levels, default=0)],
            "mean_loss": self._mean_loss(),
            "put_back": max((sample["put_back"] or 0 for sample in self.samples), default=0),
            "seconds_to_first_token": _median([stream.first for stream in good]),
            "longest_answer": max((stream.seconds for stream in good), default=0.0),
        }

    def _mean_loss(self) -> float:
        """Return nats per token as the ladder was measured, weighed by the tokens that were made at it."""
        rows = [(sample["rate"], sample["loss"]) for sample in self.samples if sample["rate"]]
        return sum(rate * loss for rate, loss in rows) / max(1e-9, sum(rate for rate, _ in rows))


def main() -> None:
    """Measure the need, squeeze, and draw."""
    options = _options()
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    _model(options)
    dense = asyncio.run(_run(options, "none", [], options.dense_seconds))
    print(json.dumps(dense.summary(), indent=1), flush=True)
    schedule = _schedule(dense.peak, options.seconds)
    runs = []
    for policy in [*options.policies.split(","), "none"]:
        run = asyncio.run(_run(options, policy, schedule, options.seconds))
        print(json.dumps(run.summary(), indent=1), flush=True)
        runs.append(run)
    body = {
        "need": dense.peak,
        "schedule": schedule,
        "dense": asdict(dense),
        "runs": [asdict(run) for run in runs],
    }
    (options.output / "squeeze.json").write_text(json.dumps(body))
    draw(body, options.output / "squeeze.png")
    if not runs[0].kills:
        print(json.dumps(again(options, runs[0]), indent=1), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--dense-seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=20, help="sentences of prompt")
    parser.add_argument("--tokens", type=int, default=160)
    parser.add_argument("--policies", default="greedy", help="parted by commas; none comes last in any case")
    parser.add_argument("-o", "--output", type=Path, default=Path("out/squeeze"))
    parser.add_argument("--again", type=int, default=6, help="answers that are computed again")
    parser.add_argument("serve", nargs="*", help="after --: options of `secateur serve`")
    return parser.parse_args()


def _schedule(need: int, seconds: float) -> list[tuple[float, float]]:
    """Return `(second, limit)` at which the limit begins to move to another value."""
    return [
        (0, need * _SLACK),
        (seconds * 0.15, need * 0.8),
        (seconds * 0.45, need * 0.6),
        (seconds * 0.8, need * _SLACK),
    ]


async def _run(
    options: argparse.Namespace, policy: str, schedule: list[tuple[float, float]], seconds: float
) -> Run:
    run = Run(policy)
    with _server(options, policy, run) as (group, process, address):
        start = time.monotonic()
        stop = asyncio.Event()
        watching = asyncio.create_task(_watch(group, address, run, start, stop))
        squeezing = asyncio.create_task(_squeeze(group, schedule, start, seconds))
        clients = [
            asyncio.create_task(_client(number, options, address, run, start, seconds))
            for number in range(options.clients)
        ]
        ended = asyncio.create_task(asyncio.to_thread(process.wait))
        served = asyncio.gather(*clients)
        await asyncio.wait({ended, served}, return_when=asyncio.FIRST_COMPLETED)
        await served
        squeezing.cancel()
        stop.set()
        await watching
        if process.poll() is None:
            async with httpx.AsyncClient() as http:
                run.engine_tokens = (await http.get(f"{address}/state")).json()["answer_tokens"]
        run.kills = group.kills()
        run.exit_code = process.poll()
        if run.exit_code is None:
            process.send_signal(signal.SIGTERM)
        await ended
    return run


@contextlib.contextmanager
def _server(options: argparse.Namespace, policy: str, run: Run) -> Iterator[tuple[Group, Any, str]]:
    group = Group(f"squeeze-{os.getpid()}-{policy}")
    log = (options.output / f"server-{policy}.log").open("w+")
    server = [
        sys.executable,
        str(Path(__file__).with_name("recorded.py")),
        str(options.output / f"steps-{policy}.jsonl"),
    ]
    command = [
        *server,
        "serve",
        options.model,
        "--port",
        "0",
        "--policy",
        policy,
        "--cache",
        str(options.output / "cache"),
        *options.serve,
    ]
    process = group.run(command, stdout=log, stderr=log)
    try:
        yield group, process, _address(process, Path(log.name))
    finally:
        process.kill()
        process.wait()
        group.remove()


def _address(process: Any, log: Path) -> str:
    while process.poll() is None:
        for line in log.read_text().splitlines():
            if line.startswith("serving "):
                return line.rpartition(" ")[2]
        time.sleep(0.2)
    raise RuntimeError(f"the server did not start: {log.read_text()[-500:]}")


async def _squeeze(group: Group, schedule: list[tuple[float, float]], start: float, seconds: float) -> None:
    """Move the limit as the schedule says.

    Up at once, down in small steps, each as soon as the kernel takes it.
    """
    step = (
        max(target for _, target in schedule) / _SLACK * 0.2 / min(_FALL, seconds * 0.1) * _STEP
        if schedule
        else 0
    )
    while True:
        now = time.monotonic() - start
        targets = [target for second, target in schedule if second <= now]
        if targets:
            target = targets[-1]
            limit = group.limit()
            if limit is None or target > limit:
                group.set_limit(int(target))
            elif target < limit - 4096:
                group.set_limit(int(max(target, limit - step)))
        await asyncio.sleep(_STEP)


async def _watch(group: Group, address: str, run: Run, start: float, stop: asyncio.Event) -> None:
    async with httpx.AsyncClient(timeout=5) as http:
        while not stop.is_set():
            state: dict[str, Any] = {}
            with contextlib.suppress(httpx.HTTPError, ValueError):
                state = (await http.get(f"{address}/state")).json()
            kept = {
                name: state.get(name)
                for name in ("level", "rate", "weights", "cache", "running", "waiting", "put_back", "loss")
            }
            run.samples.append(
                {"second": time.monotonic() - start, "limit": group.limit(), "used": group.used(), **kept}
            )
            await asyncio.sleep(_EVERY)


async def _client(
    number: int, options: argparse.Namespace, address: str, run: Run, start: float, seconds: float
) -> None:
    """Ask one thing after another until the time is over; the last answer is awaited."""
    async with httpx.AsyncClient(timeout=httpx.Timeout(120)) as http:
        asked = 0
        while time.monotonic() - start < seconds:
            stream = Stream(number, time.monotonic() - start)
            run.streams.append(stream)
            body = {
                "model": Path(options.model).name.removesuffix(".gguf"),
                "prompt": f"{number}.{asked}. " + _WORDS * options.prompt,
                "max_tokens": options.tokens,
                "stream": True,
                "stream_options": {"include_usage": True},
                "logprobs": 0,
                "temperature": 0,
            }
            stream.prompt = str(body["prompt"])
            asked += 1
            try:
                await _read(http, f"{address}/v1/completions", body, stream)
            except (httpx.HTTPError, ValueError, KeyError) as error:
                stream.wrong = f"{type(error).__name__}: {error}"[:120]
            stream.seconds = time.monotonic() - start - stream.started
            if stream.wrong and not await _alive(http, address):
                return


async def _alive(http: httpx.AsyncClient, address: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return (await http.get(f"{address}/health")).status_code == 200
    return False


async def _read(http: httpx.AsyncClient, url: str, body: dict[str, Any], stream: Stream) -> None:
    """Read a streamed answer to its end, and check that it is whole."""
    text = ""
    told = ""
    tokens = 0
    usage = None
    events = list[str]()
    began = time.monotonic()
    async with http.stream("POST", url, json=body) as answer:
        if answer.status_code != 200:
            stream.wrong = f"{answer.status_code}: {(await answer.aread())[:100]!r}"
            return
        async for line in answer.aiter_lines():
            if not line:
                continue
            events.append(line.removeprefix("data: "))
            if events[-1] == "[DONE]":
                continue
            part = json.loads(events[-1])
            if "error" in part:
                stream.wrong = f"error: {part['error']['message']}"
                return
            usage = part.get("usage") or usage
            for choice in part["choices"]:
                text += choice["text"]
                stream.finish = choice["finish_reason"] or stream.finish
                names = (choice["logprobs"] or {"tokens": []})["tokens"]
                # Special tokens are counted and not written.
                tokens = tokens + len(names)
                told = told + "".join(name for name in names if not _SPECIAL.fullmatch(name))
                stream.first = stream.first or time.monotonic() - began
    stream.tokens = tokens
    stream.text = text
    stream.wrong = _fault(events, text, told, tokens, usage, stream.finish, body["max_tokens"])


def _fault(
    events: list[str],
    text: str,
    told: str,
    tokens: int,
    usage: dict[str, int] | None,
    finish: str,
    limit: int,
) -> str:
    """Return what is wrong with an answer, or nothing."""
    if not events or events[-1] != "[DONE]" or events.count("[DONE]") != 1:
        return "it did not end as it must"
    if usage is None or usage["completion_tokens"] != tokens:
        return f"{tokens} tokens came, the engine says {usage}"
    if finish not in ("stop", "length") or (finish == "length") != (tokens == limit):
        return f"it ended by {finish!r} after {tokens} of {limit} tokens"
    # A token may be a part of a character; its name has a mark there, the text has the character.
    same = text == told or "\ufffd" in told or "\ufffd" in text
    return "" if same else f"the text is not that of its tokens: {text[-30:]!r}, {told[-30:]!r}"


def _model(options: argparse.Namespace) -> tuple[Any, Any]:
    """Return the elastic model that the server has, whole, and its tokenizer.

    Its ladder and its weights are made first if they are not there.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--ladder", type=Path)
    parser.add_argument("--kv", default="f32")
    parser.add_argument("--backend", default="elastic")
    parser.add_argument("--type", default=NATIVE)
    same, _ = parser.parse_known_args(options.serve)
    kind = same.type if same.backend == "native" else ""
    opened = open_model(options.model)
    stepped, _, _ = make_elastic(
        opened,
        Elasticity(folder=options.output / "cache", ladder=same.ladder, kv=same.kv, kind=kind),
        Silent(),
    )
    return stepped, opened.source.tokenizer()


def again(options: argparse.Namespace, run: Run) -> dict[str, Any]:
    """Compute the answers whose level changed most again, and compare."""
    model, tokenizer = _model(options)
    held = lives(options.output / f"steps-{run.policy}.jsonl")
    whole = {tuple(tokenizer.encode(stream.prompt)): stream for stream in run.streams if not stream.wrong}
    found: dict[str, Any] = {
        "answers": 0,
        "tokens": 0,
        "changes": [],
        "not_likeliest": 0,
        "most_below": 0.0,
        "other_text": 0,
    }
    of = {prompt: [life for life in held if tuple(life.tokens[: len(prompt)]) == prompt] for prompt in whole}
    for prompt in sorted(of, key=lambda prompt: -sum(life.changes for life in of[prompt]))[: options.again]:
        found["answers"] += 1
        found["changes"].append(sum(life.changes for life in of[prompt]))
        for life in of[prompt]:
            below, last = replay(model, life)
            found["tokens"] += len(below)
            found["not_likeliest"] += sum(gap > 0 for gap in below)
            found["most_below"] = max(found["most_below"], *below, 0.0)
        answer = [*of[prompt][-1].tokens[len(prompt) :], last]
        found["other_text"] += tokenizer.decode(answer, skip_special_tokens=True) != whole[prompt].text
    return found


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0


if __name__ == "__main__":
    main()
