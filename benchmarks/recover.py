"""What recovery gives back of SmolLM2-135M.

Perplexity and processor seconds of each method, after closed-form repair.

    python benchmarks/recover.py [--only "FFN -20 %"] [--methods local distill] [--scratch out/recover]
    python benchmarks/recover.py --only "Wanda 50 %" --methods gradual       # prunes the dense model while it
    trains python benchmarks/recover.py --only "FFN -20 %" --methods interleaved
    python benchmarks/recover.py --calib ../shared/data/wikitext-2/wiki.train.part.raw --scratch
    out/recover-wiki

Students that `--scratch` already holds are not pruned again; `--calib` is the text that prunes and recovers.
The share closed is that of the gap in log perplexity between the student, repaired in closed form, and the
dense model. Processor seconds are those of the whole `secateur recover`, all threads.
"""

from __future__ import annotations

import argparse
import math
import resource
from pathlib import Path

from common import CALIBRATION, SECATEUR, perplexity, prune, run, table

MODEL = "smollm2-135m"
STUDENTS = {
    "Wanda 50 %": "--method wanda --sparsity 0.5 --repair lsq",
    "FFN -20 %": "--method width --ratio 0.2",
}
TEN_MINUTES = "--steps 60 --batch 512 --micro 1 --samples 68"
METHODS = {
    "local": "--method local",
    "distill": f"--method distill --rate 1e-3 {TEN_MINUTES}",
    "distill-1024": "--method distill --steps 32 --batch 1024 --micro 2 --samples 72",
    "lora": f"--method lora {TEN_MINUTES}",
    "bias": f"--method bias {TEN_MINUTES}",
    "gradual": f"--method distill --sparsity 0.5 --rate 1e-3 {TEN_MINUTES}",
    "interleaved": f"--method distill --ratio 0.2 --stages 2 --rate 1e-3 {TEN_MINUTES}",
    "distill-long": "--method distill",
}
FROM_DENSE = ("gradual", "interleaved")
"""Methods that prune themselves."""


def recovered(
    student: Path | str, out: Path, options: str, calibration: Path = CALIBRATION
) -> tuple[dict[str, float], float]:
    """Recover a student; return what the command printed and its processor seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    body = run(
        [
            SECATEUR,
            "recover",
            str(student),
            "-o",
            str(out),
            "--teacher",
            MODEL,
            "--calib",
            str(calibration),
            "--overwrite",
            "--json",
            *options.split(),
        ]
    ).body
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return body, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Prune, recover, measure, print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", action="append", choices=STUDENTS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["local"])
    parser.add_argument("--options", default="", help="more options for every recovery")
    parser.add_argument(
        "--start",
        type=Path,
        help="recover this model instead of the pruned one, such as what another method gave",
    )
    parser.add_argument("--calib", type=Path, default=CALIBRATION)
    parser.add_argument(
        "--dense", type=float, help="perplexity of the whole model, where it was measured already"
    )
    parser.add_argument("--scratch", type=Path, default=Path("out/recover"))
    given = parser.parse_args()
    rows = []
    dense = given.dense or perplexity(MODEL)
    for name in given.only or STUDENTS:
        student = given.start or given.scratch / name.replace(" ", "").replace("%", "")
        if not student.exists():
            prune(student, *STUDENTS[name].split(), calibration=str(given.calib))
        start = perplexity(student)
        rows.append([name, "closed form", f"{start:.2f}", "", "", ""])
        for method in given.methods:
            out = student.with_name(f"{student.name}-{method}")
            body, seconds = recovered(
                MODEL if method in FROM_DENSE else student,
                out,
                f"{METHODS[method]} {given.options}",
                given.calib,
            )
            found = perplexity(out)
            closed = math.log(start / found) / math.log(start / dense)
            rows.append(
                [
                    name,
                    method,
                    f"{found:.2f}",
                    f"{closed:.1%}",
                    f"{seconds:.0f}",
                    str(body.get("tokens_per_second", "")),
                ]
            )
            print(
                table(
                    ["student", "recovery", "perplexity", "gap closed", "processor seconds", "tokens/s"], rows
                ),
                flush=True,
            )
    print(f"dense {dense:.3f}")


if __name__ == "__main__":
    main()
