"""Make the ladder of a model in a process of its own, which takes its memory with it when it ends.

In the process of a server, ranking would leave 100 MB and more in the heap.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from secateur.core.process_memory import spare_the_machine
from secateur.core.progress import Progress, Told, repeat, tell
from secateur_runtime.errors import ExitCode, SecateurError, UsageError


def make_ladder(ref: str, path: Path, threads: int, progress: Progress) -> None:
    """Rank and price the model `ref` in another process, and save its ladder as `path`.

    threads: of the other process. Raises UsageError with its reason if it fails.
    """
    command = [sys.executable, "-m", __name__, ref, str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    reason = ""
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            reason = str(repeat(line, progress).get("error", reason))
    if process.returncode:
        why = reason or f"the process that ranks it ended with {process.returncode}"
        raise UsageError(f"no ladder of {ref} could be made ({why}): --ladder takes one")


def rank_and_price(ref: str, path: Path, progress: Progress) -> None:
    """Save the ladder of the model `ref` as `path`; a ranking that a killed run left next to it is taken."""
    from secateur.adapt.ranking.pricing import price
    from secateur.adapt.ranking.rank import Rank, rank
    from secateur.model.handle import open_model
    from secateur_runtime.ladder_file import read_ladder

    how = Rank()
    ranked = path.with_name("ranked.json")
    model = open_model(ref)
    if not ranked.exists():
        rank(model, how, out=ranked, progress=progress)
    priced = price(
        model, read_ladder(ranked), how.calibration, probe=how.probe, scratch=path.parent, progress=progress
    )
    priced.save(path)


def main(ref: str, path: str) -> None:
    """Make a ladder; progress and an error are lines on stdout."""
    spare_the_machine()
    try:
        rank_and_price(ref, Path(path), Told())
    except SecateurError as error:
        tell(error=str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)


if __name__ == "__main__":
    main(*sys.argv[1:])
