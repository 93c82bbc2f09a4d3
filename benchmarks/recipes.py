"""Does a recipe killed at random moments end with the artefacts of an uninterrupted one?

    python benchmarks/recipes.py [--kills 10] [--seed 0]
    python benchmarks/recipes.py --whole DIR [--calib ../shared/data/wikitext-2/wiki.train.part.raw] [--once]

Kills with `kill -9`, resumes with `--resume` and compares every file. SmolLM2-135M at a budget that says
nothing about quality: Wanda 50 %, a little local recovery, 4 bits, GGUF, two short windows of WikiText. Costs
and results of the stages of the uninterrupted run are printed first. `--whole` prints the same table for a
recipe like `recipes/pi5-4bit.yaml` at a realistic budget, perplexity by the protocol: an hour of one core,
resumed where it stopped. `--once` measures perplexity at its end alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import tempfile
import time
from pathlib import Path

from common import CALIBRATION, SECATEUR, TEST_TEXT, table

RECIPE = f"""
model: smollm2-135m
calibration: {{text: {CALIBRATION}, samples: 4, window: 256}}
stages:
  - prune: {{method: wanda, sparsity: 0.5}}
  - recover: {{steps: 4}}
  - quantize: {{bits: 4, method: imatrix}}
  - export
  - eval: {{text: {TEST_TEXT}, window: 512, count: 2}}
"""
EVAL = f"  - eval: {{text: {TEST_TEXT}, window: 2048, count: 20}}\n"
WHOLE = f"""
model: smollm2-135m
calibration: {{text: CALIBRATION, samples: 64, window: 512}}
stages:
  - prune: {{method: width, ratio: 0.2, allocation: sensitivity}}
{EVAL}  - recover: {{method: distill, steps: 72, batch: 1024, micro: 2, calibration: {{samples: 124}}}}
{EVAL}  - quantize: {{bits: 4, group: 32}}
  - recover: {{method: scales, steps: 42, batch: 1024, micro: 2, calibration: {{samples: 96}}}}
  - export
{EVAL}"""
COLUMNS = (
    "stage",
    "seconds",
    "processor_seconds",
    "parameters",
    "bytes",
    "kl_before",
    "kl_after",
    "kl_in_llama_cpp",
    "perplexity",
    "perplexity_ratio",
)


def digests(out: Path) -> dict[str, str]:
    """Return the digest of every file that a stage made; what was measured in seconds is in none of them."""
    made = [
        path
        for entry in (out / "stages").iterdir()
        if entry.suffix != ".json"
        for path in (entry.iterdir() if entry.is_dir() else [entry])
    ]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in made}


def costs(out: Path) -> str:
    """Return the table of what each stage of a finished run took and gave."""
    rows = json.loads((out / "report.json").read_text())["stages"]
    return table(
        list(COLUMNS),
        [
            [
                f"{row[name]:.4g}" if isinstance(row.get(name), float) else str(row.get(name, ""))
                for name in COLUMNS
            ]
            for row in rows
        ],
    )


def run_whole(folder: Path, calibration: Path, *, once: bool) -> None:
    """Run the recipe of full budget on a text, or go on with it, and print its table."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "recipe.yaml"
    text = WHOLE.replace("CALIBRATION", str(calibration))
    recipe.write_text(text.replace(EVAL, "", 2) if once else text)
    subprocess.run(
        [SECATEUR, "run", str(recipe), "--resume", "--quiet", "-o", str(folder / "out")],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    print(costs(folder / "out"))


def main() -> None:
    """Kill one run again and again, resume or restart it each time, and compare the artefacts of the last."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--whole", type=Path, metavar="DIR")
    parser.add_argument("--calib", type=Path, default=CALIBRATION, help="the text of --whole")
    parser.add_argument("--once", action="store_true", help="--whole: measure at the end alone")
    options = parser.parse_args()
    if options.whole:
        run_whole(options.whole, options.calib, once=options.once)
        return
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        recipe = Path(scratch) / "recipe.yaml"
        recipe.write_text(RECIPE)
        command = [SECATEUR, "run", str(recipe), "--resume", "--quiet", "-o"]
        whole = Path(scratch) / "whole"
        out = Path(scratch) / "out"
        kills = 0
        started = time.perf_counter()
        subprocess.run([*command, str(whole)], check=True, stdout=subprocess.DEVNULL)
        usual = time.perf_counter() - started
        expected = digests(whole)
        print(costs(whole), flush=True)
        while kills < options.kills:
            process = subprocess.Popen(
                [*command, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            moment = draw.uniform(0, usual / 5)
            time.sleep(moment)
            process.kill()
            kills += 1
            ended = process.wait() == 0
            print(
                f"kill {kills}: after {moment:.1f} s of {usual:.1f}, {len(list(out.glob('stages/*.json')))}"
                " stages done",
                flush=True,
            )
            if ended:
                break
        subprocess.run([*command, str(out)], check=True, stdout=subprocess.DEVNULL)
        found = digests(out)
        same = sum(found.get(name) == digest for name, digest in expected.items())
    print(
        f"after {kills} kills: {same} of {len(expected)} files are those of the uninterrupted run,"
        f" {len(found.keys() - expected.keys())} others"
    )


if __name__ == "__main__":
    main()
