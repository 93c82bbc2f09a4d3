"""Through which files does a model pass while it is pruned?

A reader who follows a model through `secateur prune` opens a file for each function that receives it. This
script traces real runs on a tiny model and counts:

    python benchmarks/model_path.py                    # this checkout
    python benchmarks/model_path.py --root ../before   # another one
    python benchmarks/model_path.py --show width       # the whole walk of one kind of pruning

A function receives the model if an argument is the opened model (`ModelHandle`), a `Source` that it is read
from, or the stream of its blocks. The walk visits each function once, when it is first called.
A file is entered when a function of it is visited; a visit to a file that was entered before, and left, is a
return. The last two columns count functions that receive a part or a description of the model too: its
graph, its family, a block.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

_TEXT = ("--samples", "4", "--calib-window", "32")
KINDS = {
    "weights": ("--method", "wanda", "--sparsity", "0.5", *_TEXT),
    "width": ("--method", "width", "--ratio", "0.3", "--align", "1", *_TEXT),
    "depth": ("--method", "depth", "--drop-layers", "1", *_TEXT),
    "vocab": ("--method", "vocab", "--ratio", "0.2", "--align", "1"),
    "auto": ("--target", "params=85%", "--align", "1", *_TEXT),
}
_MODEL = (
    ("secateur.model.handle", "ModelHandle"),
    ("secateur.model.formats.safetensors_source", "FolderSource"),
    ("secateur.tensors.source", "Derived"),
    ("secateur.model.block_stream", "ModelStream"),
)
_PARTS = (
    ("secateur.core.graph", "Graph"),
    ("secateur.core.graph", "Block"),
    ("secateur.model.families", "Family"),
    ("secateur.model.block_stream", "StreamedBlock"),
)
HEAD = """| pruned | files entered | returns | with parts: files | returns |
|---|---|---|---|---|"""


class Walk:
    """The functions that receive the model, in the order in which they are first called."""

    def __init__(self, source: Path, carriers: Sequence[tuple[str, str]]) -> None:
        self._source = str(source) + os.sep
        self._carriers = tuple(getattr(importlib.import_module(module), name) for module, name in carriers)
        self._seen: set[CodeType] = set()
        self.steps: list[tuple[str, str]] = []

    def __call__(self, frame: FrameType, event: str, _value: Any) -> None:
        """Look at one call, as `sys.setprofile` reports it."""
        code = frame.f_code
        if event != "call" or code in self._seen or not code.co_filename.startswith(self._source):
            return
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        if any(isinstance(frame.f_locals.get(name), self._carriers) for name in names):
            self._seen.add(code)
            self.steps.append((code.co_filename.removeprefix(self._source), code.co_qualname))

    @property
    def counts(self) -> tuple[int, int]:
        """Files entered, and returns."""
        files = [file for file, _ in self.steps]
        visits = [file for place, file in enumerate(files) if place == 0 or files[place - 1] != file]
        return len(set(files)), len(visits) - len(set(files))


def trace(kind: str, *, show: bool) -> None:
    """Prune a tiny model in this process and print how many files were entered, and how many returns."""
    from tests.tiny_models import save_tiny

    from secateur.cli.main import app

    source = Path(importlib.import_module("secateur").__file__ or "").parents[1]
    walk = Walk(source, _MODEL)
    wide = Walk(source, (*_MODEL, *_PARTS))

    def look(frame: FrameType, event: str, value: Any) -> None:
        walk(frame, event, value)
        wide(frame, event, value)

    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        save_tiny("llama", model, None, {})
        command = ["prune", str(model), "-o", str(Path(folder) / "out"), *KINDS[kind], "--json"]
        sys.setprofile(look)
        try:
            app(command, standalone_mode=False)
        finally:
            sys.setprofile(None)
    for file, function in walk.steps if show else ():
        print(f"{file}: {function}")
    print(f"| {kind} | {' | '.join(map(str, (*walk.counts, *wide.counts)))} |")


def main() -> None:
    """Trace one kind in this process, or every kind in a process of the checkout `--root`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--show", choices=KINDS, help="print the walk of one kind")
    parser.add_argument("--trace", choices=KINDS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.trace:
        trace(given.trace, show=bool(given.show))
        return
    root = given.root.resolve()
    environment = os.environ | {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}", "PYTHONSAFEPATH": "1"}
    print(HEAD)
    for kind in [given.show] if given.show else KINDS:
        command = [sys.executable, __file__, "--trace", kind, *(["--show", kind] if given.show else [])]
        done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"pruning by {kind} failed in {root}: {done.stderr.strip()[-500:]}")
        print("\n".join(line for line in done.stdout.splitlines() if not line.startswith(("{", "}", " "))))


if __name__ == "__main__":
    main()
