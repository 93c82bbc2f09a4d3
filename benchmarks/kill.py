"""Does a killed run end with the same bytes as an uninterrupted one?

    python benchmarks/kill.py [--kills 20] [--seed 0]

Kills at random moments with `kill -9`, resumes and compares.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import subprocess
import tempfile
import time
from pathlib import Path

from common import CALIBRATION, SECATEUR

COMMAND = [
    SECATEUR,
    "prune",
    "smollm2-135m",
    "--method",
    "wanda",
    "--sparsity",
    "0.5",
    "--calib",
    str(CALIBRATION),
    "--samples",
    "2",
    "--quiet",
]


def digests(folder: Path) -> dict[str, str]:
    """Return the digest of every file of a folder."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def main() -> None:
    """Kill one run after another, each resumed, and count those that end with other bytes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole"
        out = Path(scratch) / "out"
        started = time.perf_counter()
        subprocess.run([*COMMAND, "-o", str(whole)], check=True, stdout=subprocess.DEVNULL)
        usual = time.perf_counter() - started
        expected = digests(whole)
        different = 0
        late = 0
        for kill in range(options.kills):
            process = subprocess.Popen(
                [*COMMAND, "-o", str(out), "--overwrite"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            moment = draw.uniform(0, usual)
            time.sleep(moment)
            process.kill()
            late += process.wait() == 0
            blocks = len(list(out.with_name("out.partial").glob("model-*.safetensors")))
            subprocess.run([*COMMAND, "-o", str(out), "--overwrite"], check=True, stdout=subprocess.DEVNULL)
            same = digests(out) == expected
            different += not same
            print(
                f"kill {kill + 1}: after {moment:.1f} s of {usual:.1f}, {blocks} shards done,"
                f" {'same bytes' if same else 'OTHER BYTES'}",
                flush=True,
            )
    print(
        f"{options.kills - different} of {options.kills} resumed runs gave the bytes of the uninterrupted run"
        f" ({late} had ended before the kill)"
    )


if __name__ == "__main__":
    main()
