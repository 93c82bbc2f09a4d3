"""The elastic model: memory and time of level changes, the memory model, decoding speed, cost of a ranking.

    python benchmarks/elastic.py rank -o ladder.json
    python benchmarks/elastic.py levels --ladder ladder.json
    MKL_DISABLE_FAST_MM=1 python benchmarks/elastic.py memory --ladder ladder.json
    python benchmarks/elastic.py speed --ladder ladder.json
    python benchmarks/elastic.py serve --ladder ladder.json --threads 1
    python benchmarks/elastic.py start --ladder ladder.json --beside OLD/src

`rank` times every sub-block of SmolLM2-135M, and the first step of a naive search.
`levels` counts in a memory cgroup of its own where it may make one (v1 or v2).
`memory` needs the variable that the command sets for itself.
`serve` measures tokens/s of `secateur serve` in torch and in the kernels, in turns.
`start` measures how long `secateur serve` takes to listen, and what the process holds, in turns with another
checkout; without a ladder the first start makes one.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import torch

import common
from secateur.adapt.elastic.torch_model import build_body, open_elastic
from secateur.adapt.elastic.weights import prepare
from secateur.adapt.memory_model import MemoryModel
from secateur.adapt.ranking.rank import Rank, rank
from secateur.adapt.ranking.windowed_forward import Passing
from secateur.adapt.serving.launch import ends_of
from secateur.calibrate.calibration import Calibration, calibration_tokens
from secateur.core.process_memory import hold_little
from secateur.core.progress import Silent
from secateur.model.full_model import load_whole
from secateur.model.handle import ModelHandle, open_model
from secateur.runtime.elastic.model import Elastic
from secateur.runtime.process import forget_peak, process_memory
from secateur.runtime.torch import TorchBackend
from secateur_runtime.decoder.kv_cache import ElasticCache
from secateur_runtime.ladder import Ladder, half_of
from secateur_runtime.ladder_file import read_ladder

REPEAT = 5
MB = 1e6
CGROUPS = Path("/sys/fs/cgroup")


class Notes(Silent):
    """Prints what a search finds."""

    def note(self, line: str) -> None:
        """Print."""
        print(" ", line, flush=True)


def resident(process: int | str = "self") -> int:
    """Bytes of anonymous pages of a process, counted page by page by the kernel."""
    rows = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return int(next(row.split()[1] for row in rows if row.startswith("Anonymous:"))) * 1024


@contextmanager
def counted_group() -> Iterator[Path | None]:
    """Put this process into a memory cgroup of its own.

    Yield its folder, or None where that is not allowed.
    """
    parent = CGROUPS / "memory" if (CGROUPS / "memory").is_dir() else CGROUPS
    group = parent / f"elastic-{os.getpid()}"
    try:
        group.mkdir()
        (group / "cgroup.procs").write_text(str(os.getpid()))
    except OSError:
        yield None
        return
    try:
        yield group
    finally:
        (parent / "cgroup.procs").write_text(str(os.getpid()))
        group.rmdir()


def charged(group: Path | None) -> int:
    """Bytes that the kernel charges to the group, the page cache included."""
    if group is None:
        return 0
    name = "memory.current" if (group / "memory.current").exists() else "memory.usage_in_bytes"
    return int((group / name).read_text())


def forget(path: Path) -> None:
    """Drop a file from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def spread(values: list[float], form: str = "{:.1f}") -> str:
    """Write a median with its range."""
    return f"{form.format(statistics.median(values))} ({form.format(min(values))}-{form.format(max(values))})"


def level_at(ladder: Ladder, share: float) -> int:
    """Return the first level whose weights are at most this share of the whole model's."""
    return next(
        level
        for level in range(len(ladder))
        if ladder.at(level).weight_bytes <= share * ladder.whole.weight_bytes
    )


def filled(elastic: Elastic, batch: int, tokens: int) -> list[ElasticCache]:
    """Open requests of so many tokens."""
    caches = [elastic.open(tokens + 64) for _ in range(batch)]
    for cache in caches:
        elastic.prefill(torch.randint(elastic.vocab_size, (tokens,)).tolist(), cache)
    return caches


def levels(model: ModelHandle, ladder: Ladder, folder: Path) -> None:
    """Shrink the whole model to 80 % and 60 % of its weights and restore it, with eight requests open.

    Each request has 512 tokens.
    """
    path = folder / "weights.safetensors"
    memory = MemoryModel(model.graph)
    rows = list[list[str]]()
    with counted_group() as group:
        elastic = open_elastic(model, ladder, path)
        for share in (0.8, 0.6):
            level = level_at(ladder, share)
            found: dict[str, list[float]] = {name: [] for name in ("down", "share", "charge", "up", "back")}
            for _ in range(REPEAT):
                caches = filled(elastic, 8, 512)
                forget(path)
                kept = ladder.kept(0)
                less = ladder.kept(level)
                computed = (
                    memory.weights(kept)
                    - memory.weights(less)
                    + memory.cache(kept, 8, 512)
                    - memory.cache(less, 8, 512)
                )
                before = resident()
                charge = charged(group)
                start = time.perf_counter()
                elastic.set_level(level)
                found["down"].append((time.perf_counter() - start) * 1e3)
                found["share"].append((before - resident()) / computed)
                found["charge"].append((charge - charged(group)) / computed)
                del caches
                for cache in elastic.caches:
                    cache.close()
                forget(path)
                before = resident()
                start = time.perf_counter()
                elastic.set_level(0)
                found["up"].append((time.perf_counter() - start) * 1e3)
                found["back"].append((resident() - before) / MB)
            charge_text = spread(found["charge"], "{:.3f}") if group else "not allowed"
            figures = [
                spread(found["down"]),
                spread(found["share"], "{:.3f}"),
                charge_text,
                spread(found["up"]),
                spread(found["back"]),
            ]
            rows.append([f"{share:.0%}: level {level}", f"{computed / MB:.1f}", *figures])
        mapped(path, group)
    header = [
        "to",
        "computed MB",
        "down ms",
        "returned (process)",
        "returned (cgroup)",
        "up cold ms",
        "taken MB",
    ]
    print(common.table(header, rows))


def mapped(path: Path, group: Path | None) -> None:
    """What the same file gives back if it is mapped: the last 40 % of it, by madvise, then by fadvise too."""
    forget(path)
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as view,
    ):
        start = len(view) * 6 // 10 // mmap.PAGESIZE * mmap.PAGESIZE
        base = charged(group)
        for at in range(0, len(view), mmap.PAGESIZE):
            view[at]
        whole = charged(group)
        began = time.perf_counter()
        view.madvise(mmap.MADV_DONTNEED, start, len(view) - start)
        advised = time.perf_counter()
        left = charged(group)
        os.posix_fadvise(file.fileno(), start, 0, os.POSIX_FADV_DONTNEED)
        dropped = time.perf_counter()
        last = charged(group)
    size = len_of(path) - start
    print(
        f"mapped file: {(whole - base) / MB:.0f} MB charged once read; madvise of {size / MB:.0f} MB"
        f" {(advised - began) * 1e3:.1f} ms, charge {(whole - left) / size:.3f} lower; with fadvise"
        f" {(dropped - advised) * 1e3:.1f} ms more, {(whole - last) / size:.3f} lower"
    )


def len_of(path: Path) -> int:
    """Bytes of a file."""
    return path.stat().st_size


def memory(model: ModelHandle, ladder: Ladder, folder: Path) -> None:
    """The memory model against what the kernel counts.

    now (weights and caches) and at most (a prompt is read meanwhile).
    """
    path = folder / "weights.safetensors"
    counts = MemoryModel(model.graph)
    rows = list[list[str]]()
    prepare(model, ladder, path, torch.bfloat16)
    warm = open_elastic(model, ladder, path, level=len(ladder) - 1)
    warm.generate([1, 2, 3], 4)
    del warm
    forget_peak()
    base = resident()
    elastic = open_elastic(model, ladder, path)
    for share in (1.0, 0.8, 0.6):
        for batch, tokens in ((1, 256), (1, 4096), (4, 1024), (8, 512), (16, 1024)):
            level = level_at(ladder, share)
            elastic.set_level(level)
            caches = filled(elastic, batch, tokens - 1)
            forget_peak()
            now = resident() - base
            kept = ladder.kept(level)
            said = counts.weights(kept) + counts.cache(kept, batch, tokens)
            peak_before = process_memory()
            elastic.decode([5] * batch, caches)
            peak = now + process_memory().peak - peak_before.resident
            total = said + counts.activations(batch, 0)
            print(share, batch, tokens, now, said, peak, total, flush=True)
            rows.append(
                [
                    f"{share:.0%}",
                    f"{batch} x {tokens}",
                    f"{now / MB:.1f}",
                    f"{said / now - 1:+.1%}",
                    f"{peak / MB:.1f}",
                    f"{total / peak - 1:+.1%}",
                ]
            )
            for cache in elastic.caches:
                cache.close()
    print(common.table(["weights", "requests", "counted MB", "model", "at most MB", "model"], rows))


def speed(model: ModelHandle, ladder: Ladder, folder: Path) -> None:
    """Decode one request and eight, weights in bfloat16 and float32, next to transformers in float32."""
    rows = []
    backend = TorchBackend(load_whole(model))
    rates = []
    for _ in range(REPEAT):
        made = backend.generate(list(range(100, 228)), 33)
        rates.append(32 / made.rest)
    rows.append(["transformers, float32", "1", spread(rates), ""])
    del backend
    for dtype in (torch.bfloat16, torch.float32):
        elastic = open_elastic(
            model, ladder, folder / f"{dtype}.safetensors".removeprefix("torch."), dtype=dtype
        )
        for share in (1.0, 0.6):
            elastic.set_level(level_at(ladder, share))
            for batch in (1, 8):
                rates = []
                prompt = []
                for _ in range(REPEAT):
                    start = time.perf_counter()
                    caches = filled(elastic, batch, 128)
                    prompt.append(128 * batch / (time.perf_counter() - start))
                    start = time.perf_counter()
                    for _ in range(16):
                        elastic.decode([7] * batch, caches)
                    rates.append(16 * batch / (time.perf_counter() - start))
                    for cache in elastic.caches:
                        cache.close()
                rows.append(
                    [
                        f"elastic, {dtype}, {share:.0%} of the weights".replace("torch.", ""),
                        str(batch),
                        spread(rates),
                        spread(prompt),
                    ]
                )
        del elastic
    print(common.table(["", "requests", "decode tokens/s", "prompt tokens/s"], rows))


def ranked(model: ModelHandle, output: Path, folder: Path) -> None:
    """Rank every sub-block, timed; then measure each as a naive search does at its first step."""
    calibration = Calibration(text=str(common.CALIBRATION), samples=16, window=512)
    how = Rank(calibration=calibration, widths=1, groups=False, floor=0.0, context=4096)
    start = time.perf_counter()
    ladder, cost = rank(model, how, out=output, overwrite=True, progress=Notes())
    took = time.perf_counter() - start
    print(f"ranked {len(ladder) - 1} halves in {took:.1f} s: {cost}")
    path = folder / "weights.safetensors"
    body = build_body(model, prepare(model, ladder, path, torch.bfloat16), path)
    tokens = calibration_tokens(model, calibration, 0)[: how.probe, :128]
    passing = Passing(body, model.graph, tokens, 96)
    sizes = ladder.kept(0)
    start = time.perf_counter()
    losses = dict[str, float]()
    for unit in (
        half_of(name) for name in sizes if int(name.partition(".")[0]) not in (0, len(model.graph.blocks) - 1)
    ):
        states = passing.embedded()
        for name in passing.halves:
            states = passing.through(name, 0 if half_of(name) == unit else sizes[name], states)
        losses[unit] = passing.loss(states)
    each = (time.perf_counter() - start) / len(losses)
    prices = MemoryModel(model.graph)
    freed = {unit: _freed(prices, unit, how.context) for unit in losses}
    best = sorted(losses, key=lambda unit: (losses[unit] - ladder.loss) / freed[unit])
    total = cost.naive_heads * each
    print(
        f"naive: {len(losses)} units measured at the first step, {each:.2f} s each, best {best[:3]}, the"
        f" search took {ladder.rungs[0].unit}"
    )
    print(
        f"naive search, computed: {cost.naive_heads} such measurements, at that time each (at most)"
        f" {total:.0f} s; passes through halves {cost.naive}"
    )


SERVED = {
    "elastic, bfloat16": ("elastic",),
    "native, bf16": ("native", "--type", "bf16"),
    "native, int8": ("native", "--type", "int8"),
}
PROMPT = 32
ANSWER = 48
STARTS = 3


@contextmanager
def serving(
    model: str, folder: Path, threads: int, *options: str, source: str = ""
) -> Iterator[tuple[str, int]]:
    """Start a server, of the checkout whose sources these are.

    Yield its address, and the number of its process.
    """
    command = [
        sys.executable,
        "-m",
        "secateur",
        "serve",
        model,
        "--cache",
        str(folder),
        "--threads",
        str(threads),
        "--port",
        "0",
        "--name",
        "it",
        *options,
    ]
    environment = {**os.environ, "PYTHONPATH": source} if source else None
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        yield next(line for line in process.stderr if line.startswith("serving ")).split()[-1], process.pid
        process.send_signal(signal.SIGINT)


def started(model: str, ladder: Path | None, threads: int, beside: str) -> None:
    """Start servers whose weights are not sorted yet, then again those that have them.

    Say what each holds once it listens, and once it has answered.
    """
    found: dict[tuple[str, ...], list[list[float]]] = {}
    for _ in range(STARTS if ladder else 1):
        for backend, tree in (
            (backend, tree) for backend in ("elastic", "native") for tree in ("", beside)[: 1 + bool(beside)]
        ):
            options = ("--backend", backend, *(("--ladder", str(ladder)) if ladder else ()))
            with tempfile.TemporaryDirectory() as folder:
                for start in ("first", "again"):
                    row = start_of(model, Path(folder), threads, options, tree)
                    found.setdefault((backend, "other" if tree else "this", start), []).append(row)
                    print(backend, tree, start, *(f"{value:.1f}" for value in row), flush=True)
    rows = [
        [*how, *(spread([row[place] for row in each]) for place in range(4))]
        for how, each in sorted(found.items())
    ]
    print(
        common.table(
            [
                "backend",
                "checkout",
                "start",
                "seconds",
                "anonymous MB, listening",
                "after an answer",
                "without the weights",
            ],
            rows,
        )
    )


def start_of(model: str, folder: Path, threads: int, options: tuple[str, ...], source: str) -> list[float]:
    """Return seconds until a server listens, and MB that it holds then and after an answer.

    The last number is that without its weights.
    """
    import httpx

    start = time.perf_counter()
    with serving(model, folder, threads, *options, source=source) as (address, process):
        took = time.perf_counter() - start
        listening = resident(process)
        httpx.post(
            f"{address}/v1/completions",
            json={"model": "it", "prompt": [5] * PROMPT, "max_tokens": 8},
            timeout=300,
        ).raise_for_status()
        weights = httpx.get(f"{address}/state", timeout=30).json()["weights"]
        answered = resident(process)
    return [took, listening / MB, answered / MB, (answered - weights) / MB]


def streamed(address: str, seed: int, ends: tuple[int, ...], came: list[list[float]]) -> None:
    """Ask for one answer, and note when each of its tokens came."""
    import httpx

    prompt = torch.randint(1000, 40_000, (PROMPT,), generator=torch.Generator().manual_seed(seed)).tolist()
    body = {
        "model": "it",
        "prompt": prompt,
        "max_tokens": ANSWER,
        "temperature": 0,
        "stream": True,
        "logit_bias": {str(end): -100 for end in ends},
    }
    times: list[float] = []
    came.append(times)
    with httpx.stream(
        "POST", f"{address}/v1/completions", json=body | {"logprobs": 0}, timeout=300
    ) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                probabilities = json.loads(line[6:])["choices"][0]["logprobs"]
                times += [time.perf_counter()] * len(probabilities["tokens"] if probabilities else ())


def asked_together(address: str, clients: int, ends: tuple[int, ...], turn: int) -> tuple[float, float]:
    """Return tokens/s while all clients are answered, and seconds until the last of them had a token."""
    came: list[list[float]] = []
    threads = [
        threading.Thread(target=streamed, args=(address, 100 * turn + place, ends, came))
        for place in range(clients)
    ]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    begin = max(times[0] for times in came)
    end = min(times[-1] for times in came)
    return sum(begin < when <= end for times in came for when in times) / (end - begin), begin - start


def served(model: str, ladder: Path, folder: Path, threads: int) -> None:
    """Clients that stream from servers in torch and in the kernels, in turns."""
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    ends = tuple(ends_of((opened := open_model(model)).source, opened.source.tokenizer()))
    with ExitStack() as stack:
        whole = ("--ladder", str(ladder), "--policy", "none", "--backend")
        addresses = {
            name: stack.enter_context(serving(model, folder, threads, *whole, *backend))[0]
            for name, backend in SERVED.items()
        }
        for turn in range(REPEAT + 1):
            for clients in (1, 8):
                for name, address in addresses.items():
                    rate = asked_together(address, clients, ends, turn)
                    # The first turn finds what libraries allocate once.
                    found.setdefault((name, clients), []).extend([rate] if turn else [])
    rows = []
    for (name, clients), rates in found.items():
        base = [rate for rate, _ in found[next(iter(SERVED)), clients]]
        ratios = [rate / other for (rate, _), other in zip(rates, base, strict=True)]
        rows.append(
            [
                name,
                str(clients),
                spread([rate for rate, _ in rates]),
                spread(ratios, "{:.2f}"),
                spread([first for _, first in rates], "{:.2f}"),
            ]
        )
    print(common.table(["", "clients", "tokens/s", "times torch's", "seconds to the last first token"], rows))


def _freed(prices: MemoryModel, unit: str, context: int) -> int:
    kept = {unit.replace("attn", "kv"): 0}
    return (
        prices.weights({})
        - prices.weights(kept)
        + (prices.kv_values({}) - prices.kv_values(kept)) * 4 * context
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["rank", "levels", "memory", "speed", "serve", "start"])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--ladder", type=Path)
    parser.add_argument("--output", "-o", type=Path, default=Path("ladder.json"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--beside", default="", help="start: the sources of another checkout, to start servers of in turns"
    )
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    hold_little()
    if chosen.part == "start":
        started(chosen.model, chosen.ladder, chosen.threads, chosen.beside)
        return
    if chosen.part == "serve":
        with tempfile.TemporaryDirectory() as folder:
            served(chosen.model, chosen.ladder, Path(folder), chosen.threads)
        return
    model = open_model(chosen.model)
    with tempfile.TemporaryDirectory() as folder:
        if chosen.part == "rank":
            ranked(model, chosen.output, Path(folder))
            return
        ladder = read_ladder(chosen.ladder)
        ladder = replace(ladder, costs=())
        {"levels": levels, "memory": memory, "speed": speed}[chosen.part](model, ladder, Path(folder))


if __name__ == "__main__":
    main()
