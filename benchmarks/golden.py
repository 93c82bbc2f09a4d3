"""Do two checkouts write the same?

A move of source files must not change anything that the product writes. This script runs many commands in two
checkouts on one machine, in turns, and compares what each wrote and printed:

    python benchmarks/golden.py --base ../before            # new: the checkout that this file stands in
    python benchmarks/golden.py --base ../before --quick    # without the real model
    python benchmarks/golden.py --base ../before --only 'width-*' --keep out/golden

It knows both checkouts by their command line alone. Tensors, tokenizers, configs and GGUF files must be
equal byte for byte. Plans (their section `execution` and digest aside), ladders and printed JSON must say the
same, versions, timings and memory aside; cards and other text too, dates aside. Both use this interpreter and
what is installed in it, so versions do not differ.

It prints a table. It exits with 1 if a command fails in either checkout, or if a file differs that has no
entry in `golden_commands.INTENDED`.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from random import Random
from typing import IO, Any

import golden_commands
from golden_commands import Command, Intended
from golden_reading import STDOUT, is_one_of, meaning, parting

INPUTS = "inputs"
_WRITTEN = ("text.txt", "device.toml", "recipe.yaml")
_TIMEOUT = 1800
_FIXED = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONSAFEPATH": "1", "COLUMNS": "100"}
_WORDS = ("light", "water", "stone", "river", "branch", "winter", "engine", "garden", "signal", "harvest")
# What runs in the base to make the models, with the helpers of its tests.
_MAKER = """
import json, sys
from pathlib import Path
from tests.mirror import write_mirror
from tests.tiny_gguf import write_gguf
from tests.tiny_models import save_tiny

here, tiny, gguf = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
for name, (family, config) in tiny.items():
    save_tiny(family, here / name, None, config)
for name, (source, kind) in gguf.items():
    whole = here / "whole" / source
    save_tiny(tiny[source][0], whole, "1GB", tiny[source][1])
    write_gguf(whole, here / f"{name}.gguf", kind)
write_mirror(here / "mirror")
"""
_FINDER = """
import importlib.util, sys
for name in sys.argv[1:]:
    print(importlib.util.find_spec(name).origin)
"""


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a command in one checkout: exit code, seconds, and the last line on stderr."""

    code: int
    seconds: float
    complaint: str


@dataclass(frozen=True, slots=True)
class Checkout:
    """Sources in one folder, and the folder that its commands run in."""

    root: Path
    work: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables of every command: one thread, no network, nothing shared with the other checkout."""
        caches = {"SECATEUR_CACHE": "secateur", "XDG_CACHE_HOME": "xdg", "HF_HOME": "hf"}
        own = {name: str(self.work / "caches" / folder) for name, folder in caches.items()}
        return {**os.environ, **_FIXED, **own, "PYTHONPATH": str(self.root / "src")}

    def check(self) -> None:
        """Raise SystemExit unless Python imports every package of `src` from this checkout."""
        packages = sorted(init.parent.name for init in self.root.glob("src/*/__init__.py"))
        command = [sys.executable, "-c", _FINDER, *packages]
        found = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True)
        origins = [Path(line) for line in found.stdout.splitlines()]
        if not packages or not all(origin.is_relative_to(self.root) for origin in origins):
            found_there = ", ".join(map(str, origins)) or "no package"
            raise SystemExit(f"{self.root} is not what runs: {found_there}")

    def run(self, name: str, words: Sequence[str]) -> Ran:
        """Run `secateur` with `words`; what it prints becomes a file beside what it writes."""
        folder = self.work / name
        folder.mkdir()
        errors = self.work / f"{name}.stderr"
        started = time.perf_counter()
        with (folder / STDOUT).open("wb") as out, errors.open("wb") as err:
            code = self._wait([sys.executable, "-m", "secateur", *words], out, err)
        lines = errors.read_text(errors="replace").strip().splitlines()
        return Ran(code, time.perf_counter() - started, lines[-1] if lines else "")

    def _wait(self, command: list[str], out: IO[bytes], err: IO[bytes]) -> int:
        """Return the exit code of a command, 124 if it took too long."""
        how: dict[str, Any] = {"cwd": self.work, "env": self.environment, "stdin": subprocess.DEVNULL}
        try:
            done = subprocess.run(command, stdout=out, stderr=err, timeout=_TIMEOUT, check=False, **how)
            return done.returncode
        except subprocess.TimeoutExpired:
            return 124


@dataclass(frozen=True, slots=True)
class Compared:
    """What a command gave: file -> `equal`, `intended`, or how it differs; and the seconds of both."""

    files: Mapping[str, str]
    base: float
    new: float

    def count(self, verdict: str) -> int:
        """Return how many files are `equal` or `intended`."""
        return list(self.files.values()).count(verdict)

    @property
    def different(self) -> dict[str, str]:
        """The files that are neither, and how they differ."""
        return {name: said for name, said in self.files.items() if said not in ("equal", "intended")}


def words_of(command: Command) -> list[str]:
    """Return the words of a command, with every place filled in."""
    places = {name: f"../{INPUTS}/{name}" for name in (*golden_commands.TINY, "mirror")}
    places |= {name: f"../{INPUTS}/{name}.gguf" for name in golden_commands.GGUF}
    places |= {name.partition(".")[0]: f"../{INPUTS}/{name}" for name in _WRITTEN}
    named = needed_by(command)
    line = command.line.format(
        **places,
        out=f"{command.name}/out",
        of={name: f"{name}/out" for name in named},
        base={name: f"../base/{name}/out" for name in named},
        said={name: f"{name}/{STDOUT}" for name in named},
        calib=golden_commands.CALIBRATION,
        real=golden_commands.REAL_CALIBRATION,
    )
    return shlex.split(line) + ([] if command.printed else ["--json"])


def needed_by(command: Command) -> list[str]:
    """Return the names of the commands whose output a command reads."""
    places = [place or "" for _, place, _, _ in string.Formatter().parse(command.line)]
    return [place.partition("[")[2].rstrip("]") for place in places if "[" in place]


def chosen(patterns: Sequence[str], commands: Sequence[Command]) -> list[Command]:
    """Return the commands that meet one of the patterns (all without any), and what they need, in order."""
    wanted = {each.name for each in commands if meets(each.name, patterns or ["*"])}
    if not wanted:
        raise SystemExit(f"no command is called {' or '.join(patterns)}")
    for each in reversed(commands):
        wanted |= set(needed_by(each)) if each.name in wanted else set()
    return [each for each in commands if each.name in wanted]


def meets(name: str, patterns: Iterable[str]) -> bool:
    """Return whether a name meets one of the patterns."""
    return any(fnmatch(name, pattern) for pattern in patterns)


def write_inputs(base: Path, folder: Path) -> None:
    """Write what both checkouts read; the models by the helpers of the base's tests."""
    folder.mkdir(parents=True)
    random = Random(0)
    sentences = (" ".join(random.choices(_WORDS, k=9)).capitalize() + "." for _ in range(600))
    written = ("\n".join(sentences) + "\n", golden_commands.DEVICE, golden_commands.RECIPE)
    for name, text in zip(_WRITTEN, written, strict=True):
        (folder / name).write_text(text)
    tables = [json.dumps(golden_commands.TINY), json.dumps(golden_commands.GGUF)]
    path = os.pathsep.join((str(base), str(base / "src")))
    maker = [sys.executable, "-c", _MAKER, str(folder), *tables]
    environment = {**os.environ, **_FIXED, "PYTHONPATH": path}
    made = subprocess.run(maker, env=environment, capture_output=True, text=True, check=False)
    if made.returncode:
        raise SystemExit(f"the models could not be made:\n{made.stderr[-2000:]}")


def compare(command: Command, base: Checkout, new: Checkout, *, base_first: bool) -> Compared:
    """Run a command in both checkouts and compare all that it wrote."""
    words = words_of(command)
    pairs = [(base, words), (new, changed_words(command, words))]
    ran: dict[Path, Ran] = {}
    for checkout, line in pairs if base_first else reversed(pairs):
        ran[checkout.work] = checkout.run(command.name, line)
    files = dict(failures(ran[base.work], ran[new.work])) or dict(differences(command, base, new))
    return Compared(files, ran[base.work].seconds, ran[new.work].seconds)


def changed_words(command: Command, words: list[str]) -> list[str]:
    """Return the words as the new checkout understands them."""
    for entry in golden_commands.INTENDED:
        if entry.argv and fnmatch(command.name, entry.command):
            words = entry.argv(words)
    return words


def failures(base: Ran, new: Ran) -> Iterator[tuple[str, str]]:
    """Yield a line for each checkout in which a command did not end with 0."""
    for name, ran in (("base", base), ("new", new)):
        if ran.code:
            yield f"exit code of {name}", f"{ran.code}: {ran.complaint}"


def differences(command: Command, base: Checkout, new: Checkout) -> Iterator[tuple[str, str]]:
    """Yield every file that a command wrote in either checkout, with its verdict."""
    before = files_in(base.work / command.name)
    after = files_in(new.work / command.name)
    for name in sorted(before | after):
        if name not in before or name not in after:
            said = f"only in {'new' if name in after else 'base'}"
            yield name, "intended" if intended(command, name) else said
            continue
        contents = [meaning(each.work / command.name / name, each.work, command) for each in (base, new)]
        yield name, verdict(command, name, *contents)


def files_in(folder: Path) -> set[str]:
    """Return the paths of all files below a folder, relative to it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def verdict(command: Command, name: str, before: Any, after: Any) -> str:
    """Return `equal`, `intended`, or where two contents part."""
    if before == after:
        return "equal"
    entries = intended(command, name)
    for entry in entries:
        before = entry.change(before) if entry.change else before
    meant = before == after or any(entry.change is None for entry in entries)
    return "intended" if meant else parting(before, after)


def intended(command: Command, name: str) -> list[Intended]:
    """Return the entries of `INTENDED` that speak of a file."""
    mine = (each for each in golden_commands.INTENDED if fnmatch(command.name, each.command))
    return [each for each in mine if is_one_of(name, [each.file])]


def run_all(commands: Sequence[Command], base: Checkout, new: Checkout, jobs: int) -> dict[str, Compared]:
    """Run all commands, so many at once, each after those whose output it reads."""
    futures: dict[str, Future[Compared]] = {}

    def one(number: int, command: Command) -> Compared:
        for name in needed_by(command):
            futures[name].result()
        compared = compare(command, base, new, base_first=number % 2 == 0)
        said = "different" if compared.different else "same"
        print(f"{number + 1}/{len(commands)} {command.name}: {said}", file=sys.stderr, flush=True)
        return compared

    with ThreadPoolExecutor(jobs) as pool:
        for number, command in enumerate(commands):
            futures[command.name] = pool.submit(one, number, command)
    return {name: future.result() for name, future in futures.items()}


def table(results: Mapping[str, Compared]) -> Iterator[str]:
    """Yield the lines of a Markdown table, then what differs, then what was meant to."""
    yield "| command | files | equal | different | intended | seconds base | seconds new |"
    yield "|---|---|---|---|---|---|---|"
    for name, each in results.items():
        counts = f"{each.count('equal')} | {len(each.different)} | {each.count('intended')}"
        yield f"| {name} | {len(each.files)} | {counts} | {each.base:.1f} | {each.new:.1f} |"
    for name, each in results.items():
        yield from (f"- DIFFERENT {name}: {file}: {said}" for file, said in each.different.items())
    for entry in golden_commands.INTENDED:
        yield f"- intended in {entry.command}, {entry.file}: {entry.reason}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run commands in two checkouts and compare what they write.")
    parser.add_argument("--base", type=Path, required=True, help="checkout that is right")
    parser.add_argument("--new", type=Path, default=Path(__file__).parents[1], help="checkout to check")
    only = "these commands and what they need; a pattern; repeatable"
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help=only)
    parser.add_argument("--quick", action="store_true", help="leave the real model out")
    parser.add_argument("--jobs", type=int, default=1, help="commands at once")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="new folder in which everything stays")
    return parser.parse_args()


def main() -> int:
    """Run, print the table, and return 1 if anything differs that should not."""
    given = arguments()
    real = () if given.quick else golden_commands.REAL
    commands = chosen(given.only, (*golden_commands.QUICK, *real))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        work = (given.keep or Path(scratch)).resolve()
        base = Checkout(given.base.resolve(), work / "base")
        new = Checkout(given.new.resolve(), work / "new")
        for checkout in (base, new):
            checkout.work.mkdir(parents=True)
            checkout.check()
        write_inputs(base.root, work / INPUTS)
        results = run_all(commands, base, new, given.jobs)
    print("\n".join(table(results)))
    files = sum(len(each.files) for each in results.values())
    different = sum(len(each.different) for each in results.values())
    minutes = (time.perf_counter() - started) / 60
    print(f"\n{len(results)} commands, {files} files, {different} different, {minutes:.1f} minutes.")
    return 1 if different else 0


if __name__ == "__main__":
    raise SystemExit(main())
