"""Predicted against measured decode speed of SmolLM2-135M in llama.cpp on this machine.

Dense and pruned, four types, one thread.

    python benchmarks/advise.py [--rounds 8] [--jsonl out/advise.jsonl] [--files out/advise [--prepare]]

The predictions know only synthetic models, timed in the same turns as the real ones, as `secateur device`
times them: what else the machine does falls on all alike. Medians are compared, as `secateur bench` reports
them. `--processor-time` counts the time that the processor spent on them instead of the time that passed: on
an idle machine the same for one thread, on a busy one the only steady figure.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from common import SECATEUR, run, table
from secateur.core.progress import Silent
from secateur.device.decode_model import clock_of
from secateur.device.profile import load_profile
from secateur.model.handle import open_model
from secateur.pipeline.advise.decode_timing import KINDS, TOKENS, Clocking, TimedModel, rates, synthetics
from secateur.pipeline.advise.size_estimate import Reduction, Sizes
from secateur.pipeline.export.formats import EXPORTERS
from secateur.runtime import Generated, Memory
from secateur.runtime.isolated import Isolated
from secateur.runtime.timed_turns import Speed, Spread, take_turns

MODEL = "smollm2-135m"
CUTS = {
    "dense": "",
    "FFN -20 %": "--method width --ratio 0.2 --criterion magnitude --repair none",
    "FFN -40 %": "--method width --ratio 0.4 --criterion magnitude --repair none",
    "6 blocks": (
        "--method depth --drop-layers 6 --criterion influence --repair none --samples 2 --calib-window 128"
    ),
}
"""What goes does not change how long the rest takes, so the cheapest criterion does."""
PROMPT = 8
WITHIN = 0.2


class Metered:
    """A backend whose seconds are those that its process had a processor, prompt left out.

    A short answer is subtracted from a long one.
    """

    def __init__(self, backend: Isolated, process: int) -> None:
        self.name = backend.name
        self._backend = backend
        self._process = process

    def generate(self, prompt: Sequence[int], max_tokens: int) -> Generated:
        """Answer twice, and return the longer answer with the time of the difference."""
        start = self._seconds()
        short = self._backend.generate(prompt, 2)
        middle = self._seconds()
        found = self._backend.generate(prompt, max_tokens)
        each = (self._seconds() - middle - (middle - start)) / (max_tokens - len(short.tokens))
        return Generated(found.tokens, found.first, each * (max_tokens - 1))

    def memory(self) -> Memory:
        """Return what the process holds."""
        return self._backend.memory()

    def logprobs(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Return the backend's own."""
        return self._backend.logprobs(tokens)

    def _seconds(self) -> float:
        return (
            sum(
                int(path.read_text().split()[0])
                for path in Path(f"/proc/{self._process}/task").glob("*/schedstat")
            )
            / 1e9
        )


def metered(backends: list[Isolated]) -> list[Metered]:
    """Return the backends, all children of this process, oldest first, with their processor time."""
    children = sorted(psutil.Process().children(), key=lambda child: child.create_time())
    return [Metered(backend, child.pid) for backend, child in zip(backends, children, strict=True)]


def files(folder: Path, cuts: int) -> dict[tuple[str, str], Path]:
    """Prune and export every configuration that is not in the folder yet."""
    made = {}
    for number, (cut, options) in enumerate(list(CUTS.items())[:cuts]):
        source = MODEL
        if options:
            source = str(folder / f"{number}")
        if options and not Path(source).exists():
            run([SECATEUR, "prune", MODEL, "-o", source, "--json", *options.split()])
        for kind in KINDS:
            made[cut, kind] = folder / f"{number}-{kind}.gguf"
            if made[cut, kind].exists():
                continue
            run(
                [
                    SECATEUR,
                    "export",
                    source,
                    "-o",
                    str(made[cut, kind]),
                    "--type",
                    kind,
                    "--no-verify",
                    "--json",
                ]
            )
    return made


def predicted(
    timed: dict[str, TimedModel], made: dict[tuple[str, str], Path]
) -> dict[tuple[str, str], float]:
    """Return seconds for each token that the rates of synthetic models give."""
    profile = load_profile("pi5").model_copy(update={"rates": rates(timed, 1)})
    clock = clock_of(profile)
    form = EXPORTERS["gguf"].advised
    assert form
    found = {}
    for (cut, kind), path in made.items():
        model = open_model(str(path))
        sizes = Sizes(model, profile, PROMPT + TOKENS // 2, form)
        work = sizes.taken(Reduction("dense", 0.0, {}, ()), kind).work
        found[cut, kind] = clock.seconds(work)
    return found


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--cuts", type=int, default=len(CUTS), help="only the first so many of the cuts")
    parser.add_argument("--jsonl", type=Path)
    parser.add_argument(
        "--files", type=Path, help="where pruned and exported models are kept for the next run"
    )
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="seconds that the processor spent, not those that passed",
    )
    parser.add_argument("--prepare", action="store_true", help="make them, and measure nothing")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = options.files or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        made = files(folder, options.cuts)
        if options.prepare:
            return
        clocking = Clocking(synthetics(), 1, stack)
        settings = {"context": PROMPT + TOKENS, "threads": 1}
        real = [
            stack.enter_context(
                Isolated("llama.cpp", "secateur.runtime.llamacpp:LlamaCpp", {"path": str(path), **settings})
            )
            for path in made.values()
        ]
        prompts = [*clocking.prompts, *([list(range(1, PROMPT + 1))] * len(real))]
        backends = [*clocking.backends, *real]
        if options.processor_time:
            backends = metered(backends)
        speeds = take_turns(backends, prompts, TOKENS, options.rounds, Silent())
        count = len(clocking.backends)
        timed = clocking.timed(speeds[:count])
        print(rates(timed, 1))
        report(predicted(timed, made), dict(zip(made, speeds[count:], strict=True)), options.jsonl)


def report(
    seconds: dict[tuple[str, str], float], speeds: dict[tuple[str, str], Speed], jsonl: Path | None
) -> None:
    """Print the table, and how many predictions are near enough."""
    rows = []
    near = 0
    for key, speed in speeds.items():
        found = Spread.of(speed.decode)
        ours = 1 / seconds[key]
        error = ours / found.median - 1
        near += abs(error) <= WITHIN
        rows.append(
            [*key, f"{ours:.1f}", f"{found.median:.1f} ({found.low:.1f}-{found.high:.1f})", f"{error:+.0%}"]
        )
        if jsonl:
            with jsonl.open("a") as file:
                file.write(
                    json.dumps(
                        {
                            "cut": key[0],
                            "type": key[1],
                            "predicted": ours,
                            "measured": found.median,
                            "turns": speed.decode,
                        }
                    )
                    + "\n"
                )
    print(table(["goes", "type", "predicted", "measured (range)", "error"], rows))
    print(f"within {WITHIN:.0%}: {near} of {len(rows)}")


if __name__ == "__main__":
    main()
