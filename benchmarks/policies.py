"""Which policy decides best, how fast, and do its assumptions hold?

Runs on SmolLM2-135M with a ladder that `secateur adapt rank` wrote.

`levels`: policies that stay on the ladder, whose losses it holds already, against the best single level; no
model is run.
`decide`: size, operations and time of every controller (a time: run it on an idle machine).
`quality`: the ten scenarios of RAP and a trace with bursts, at budgets of 80 and 60 %. Every different plan
that any policy chose is measured once on WikiText-2 test (`--windows` windows of `--window` tokens) and kept
in `--losses`, so that a stopped script continues.
`tasks`: lm-eval on the plans of `--policies` for the ten scenarios, `--limit` items of each task.
`additivity`: random sets of steps, measured, against the sum of their prices and against the ladder at the
same sum.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from common import SHARED, TEST_TEXT, table
from secateur.adapt.ranking.pricing import losses_of, open_passing
from secateur.adapt.replay.reward import observed
from secateur.adapt.replay.simulate import Simulated, simulate
from secateur.adapt.replay.speed_model import Roofline
from secateur.adapt.replay.static_policy import always, static_plan
from secateur.adapt.replay.traces import KINDS, SCENARIOS, Moment, synthetic
from secateur.calibrate.text import read_text, windows
from secateur.core.ladder_plan import plan_of_units
from secateur.model.handle import open_model
from secateur.pipeline.evaluate.tasks import evaluate_tasks
from secateur.pipeline.prune.apply import apply
from secateur_runtime.ladder import Ladder
from secateur_runtime.ladder_costs import Choices, Observation
from secateur_runtime.ladder_file import read_ladder
from secateur_runtime.policies import Policy, make_policy
from secateur_runtime.policies.q_network import load_network
from secateur_runtime.read_costs import choices_of

Units = tuple[str, ...]
BUDGETS = (0.8, 0.6)


class Measured:
    """Losses of sets of steps on one text, kept in a file.

    States of what sets have in common from the start are computed once.
    """

    def __init__(self, ladder: Ladder, arguments: argparse.Namespace) -> None:
        self._ladder = ladder
        self._path = arguments.losses
        self._model = arguments.model
        self._protocol = (
            f"{arguments.windows} windows of {arguments.window}, ladder {choices_of(ladder).ladder[:19]}"
        )
        self._size = (arguments.windows, arguments.window)
        rows = (
            [json.loads(line) for line in self._path.read_text().splitlines()] if self._path.exists() else []
        )
        self.known = {
            frozenset(row["units"]): float(row["loss"]) for row in rows if row["protocol"] == self._protocol
        }

    def measure(self, wanted: set[frozenset[str]]) -> None:
        """Measure what is not known yet."""
        missing = wanted - self.known.keys()
        print(f"{len(wanted)} plans, {len(missing)} to measure", flush=True)
        if not missing:
            return
        model = open_model(self._model)
        count, length = self._size
        tokens = windows(read_text(str(TEST_TEXT)), model.source.tokenizer(), length, count)
        rows = sorted(sorted(units) for units in missing)
        with tempfile.TemporaryDirectory() as folder:
            passing = open_passing(
                model, self._ladder, Path(folder) / "weights.safetensors", tokens, length - 1
            )
            for done, (number, loss) in enumerate(
                losses_of(passing, [self._ladder.kept_without(units) for units in rows]), 1
            ):
                self._keep(rows[number], loss)
                print(f"{done}/{len(rows)}: {loss:.4f}", flush=True)

    def _keep(self, units: Sequence[str], loss: float) -> None:
        self.known[frozenset(units)] = loss
        with self._path.open("a") as file:
            file.write(json.dumps({"units": list(units), "loss": loss, "protocol": self._protocol}) + "\n")


def policies(choices: Choices, network: Path | None) -> dict[str, Policy]:
    """Return the policies that adapt."""
    names = ["threshold", "greedy", "cost-aware", "knapsack", *(["dqn"] if network else [])]
    return {name: make_policy(name, choices, network) for name in names}


def scenarios(choices: Choices, budget: float) -> list[Observation]:
    """Return the ten scenarios, each with a share of what the whole model would need there."""
    return [
        Observation(batch=batch, tokens=tokens, available=budget * choices.whole(batch, tokens))
        for batch, tokens in SCENARIOS
    ]


def decided(choices: Choices, seen: Sequence[Observation], network: Path | None) -> dict[str, list[Units]]:
    """Return what goes in each of the scenarios.

    By every policy that decides for each, and by the best single plan for all.
    """
    found = {
        name: [policy(one).units for one in seen]
        for name, policy in policies(choices, network).items()
        if name != "threshold"
    }
    found["static level"] = [choices.units[: best_level(choices, seen)]] * len(seen)
    return found | {"static set": [static_plan(choices, seen).units] * len(seen)}


def quality(arguments: argparse.Namespace, ladder: Ladder, choices: Choices) -> None:
    """Print the perplexities of the ten scenarios, and of a trace with bursts."""
    chosen = {budget: decided(choices, scenarios(choices, budget), arguments.network) for budget in BUDGETS}
    traces = {
        budget: synthetic("bursts", choices.whole, budget=budget, requests=arguments.requests, seed=0)
        for budget in BUDGETS
    }
    runs = {budget: moving(choices, moments, arguments.network, {}) for budget, moments in traces.items()}
    wanted = {frozenset(units) for one in chosen.values() for rows in one.values() for units in rows} | {
        frozenset()
    }
    wanted |= {
        frozenset(one.gone) for found in runs.values() for run in found for one in run.happened if one.served
    }
    measured = Measured(ladder, arguments)
    measured.measure(wanted)
    whole = measured.known[frozenset()]
    for budget in BUDGETS:
        rows = [["dense", f"{math.exp(whole):.2f}", "", ""]]
        for name, sets in chosen[budget].items():
            losses = [measured.known[frozenset(units)] for units in sets]
            guessed = [choices.loss(choices.mask(units)) for units in sets]
            rows.append(
                [
                    name,
                    f"{math.exp(fmean(losses)):.2f}",
                    " ".join(f"{math.exp(loss):.1f}" for loss in losses),
                    f"{math.exp(fmean(guessed)):.2f}",
                ]
            )
        print(
            f"\nten scenarios, {budget:.0%}\n"
            + table(["policy", "perplexity (mean of logs)", "each", "as the ladder reckons"], rows)
        )
        again = moving(choices, traces[budget], arguments.network, measured.known)
        rows = [
            [run.policy, f"{math.exp(run.loss):.2f}", f"{run.killed:.0%}", str(run.changes), str(run.served)]
            for run in again
        ]
        print(
            f"\nbursts, {budget:.0%}\n"
            + table(["policy", "perplexity", "requests killed", "changes", "tokens"], rows),
            flush=True,
        )


def levels(arguments: argparse.Namespace, ladder: Ladder, choices: Choices) -> None:
    """Print what levels chosen for every moment lose, and the best single one that fits at the worst."""
    dense = float(choices.losses[0])
    names = ["none", "threshold", "greedy"]
    for budget in BUDGETS:
        seen = scenarios(choices, budget)
        each = [make_policy("greedy", choices)(one).level or 0 for one in seen]
        single = best_level(choices, seen)
        losses = [fmean(choices.losses[level] for level in each), float(choices.losses[single])]
        said = ", ".join(f"{math.exp(loss):.2f} (+{loss - dense:.3f} nats)" for loss in losses)
        print(
            f"ten scenarios, {budget:.0%}: greedy, static {said}; levels {each}, {single}; dense"
            f" {math.exp(dense):.2f}"
        )
        rows = []
        for kind in KINDS:
            for seed in range(arguments.seeds):
                moments = synthetic(
                    kind, choices.whole, budget=budget, requests=arguments.requests, seed=seed
                )
                whole = np.zeros(len(choices.units), dtype=bool)
                fixed = choices.level(
                    best_level(choices, [observed(moment, choices, whole) for moment in moments]), seen[0]
                )
                chosen = {name: make_policy(name, choices) for name in names} | {
                    "static": always(choices, fixed)
                }
                for name, policy in chosen.items():
                    run = simulate(choices, name, policy, moments, Roofline(10e9, 50e9, "fixed"), {})
                    rows.append((kind, name, run.loss, run.killed, run.changes))
        print(
            table(
                ["trace", "policy", "perplexity", "range over seeds", "requests killed", "changes"],
                summed(rows),
            ),
            flush=True,
        )


def summed(rows: Sequence[tuple[str, str, float, float, int]]) -> list[list[str]]:
    """Return the rows of all seeds as one each."""
    found = []
    for kind, name in dict.fromkeys(row[:2] for row in rows):
        those = [row for row in rows if row[:2] == (kind, name)]
        served = [row[2] for row in those if not math.isnan(row[2])]
        middle = (
            [f"{math.exp(fmean(served)):.2f}", f"{math.exp(min(served)):.2f}-{math.exp(max(served)):.2f}"]
            if served
            else ["", ""]
        )
        found.append(
            [
                kind,
                name,
                *middle,
                f"{fmean(row[3] for row in those):.0%}",
                f"{fmean(row[4] for row in those):.0f}",
            ]
        )
    return found


def best_level(choices: Choices, seen: Sequence[Observation]) -> int:
    """Return the level of least loss among those that fit everywhere, or the last."""
    fits = np.all([choices.needs(one) <= one.available for one in seen], axis=0)
    return int(np.where(fits, choices.losses, np.inf).argmin()) if fits.any() else len(choices.units)


def moving(
    choices: Choices, moments: Sequence[Moment], network: Path | None, losses: dict[frozenset[str], float]
) -> list[Simulated]:
    """Return how a trace goes with each policy in charge, and with the best single plan for it."""
    whole = np.zeros(len(choices.units), dtype=bool)
    fixed = always(choices, static_plan(choices, [observed(moment, choices, whole) for moment in moments]))
    speed = Roofline(10e9, 50e9, "fixed")
    return [
        simulate(choices, name, policy, moments, speed, losses)
        for name, policy in (policies(choices, network) | {"static": fixed}).items()
    ]


def decide(arguments: argparse.Namespace, ladder: Ladder, choices: Choices) -> None:
    """Print what deciding costs, over moments of a trace."""
    whole = np.zeros(len(choices.units), dtype=bool)
    moments = [
        moment
        for budget in BUDGETS
        for moment in synthetic("bursts", choices.whole, budget=budget, requests=100, seed=1)
    ]
    seen = [observed(moment, choices, whole) for moment in moments]
    rows = []
    for name, policy in policies(choices, arguments.network).items():
        for one in seen[:50]:
            policy(one)
        times = [timed(policy, one) for one in seen]
        rows.append(
            [
                name,
                *(
                    f"{1e6 * float(value):.0f}"
                    for value in (np.median(times), np.quantile(times, 0.99), max(times))
                ),
            ]
        )
    print(table(["policy", "median, us", "99 %", "longest"], rows))
    if arguments.network:
        network = load_network(arguments.network, choices)
        size = arguments.network.stat().st_size
        share = 2 * network.parameters / float(choices.flops[0])
        print(
            f"network: {network.parameters} parameters, {size} bytes, {share:.2e} of the operations of one"
            " token, for each step that is taken"
        )
        steps = [len(make_policy("dqn", choices, arguments.network)(one).units) for one in seen]
        print(f"steps taken by a decision: {fmean(steps):.1f} on average, {max(steps)} at most")


def timed(policy: Policy, seen: Observation) -> float:
    """Return the seconds of one decision."""
    start = time.perf_counter()
    policy(seen)
    return time.perf_counter() - start


def tasks(arguments: argparse.Namespace, ladder: Ladder, choices: Choices) -> None:
    """Print the mean accuracy over the ten scenarios; every different plan is scored once."""
    known: dict[str, dict[str, float]] = (
        json.loads(arguments.scores.read_text()) if arguments.scores.exists() else {}
    )
    names = arguments.policies.split(",")
    for budget in BUDGETS:
        chosen = decided(choices, scenarios(choices, budget), arguments.network)
        rows = [["dense", *score(ladder, (), known, arguments)]]
        for name in names:
            each = [score(ladder, units, known, arguments) for units in chosen[name]]
            rows.append([name, *map(fmean, zip(*each, strict=True))])
        shown = [
            [str(row[0]), *(f"{float(value):.4f}" for value in [*row[1:], fmean(row[1:])])] for row in rows
        ]
        print(f"\n{budget:.0%}\n" + table(["policy", *arguments.tasks.split(","), "mean"], shown), flush=True)


def score(
    ladder: Ladder, units: Units, known: dict[str, dict[str, float]], arguments: argparse.Namespace
) -> list[float]:
    """Return the accuracy of each task without these steps."""
    key = f"{arguments.limit} {arguments.tasks} {' '.join(sorted(units))}"
    if key not in known:
        with tempfile.TemporaryDirectory() as folder:
            apply(plan_of_units(ladder, units), arguments.model, f"{folder}/out")
            found = evaluate_tasks(
                f"{folder}/out", arguments.tasks.split(","), limit=arguments.limit, datasets=SHARED / "hub"
            )
        known[key] = {one.task: one["acc"].value for one in found.scores}
        arguments.scores.write_text(json.dumps(known))
        print(len(known), known[key], flush=True)
    return [known[key][task] for task in arguments.tasks.split(",")]


def additivity(arguments: argparse.Namespace, ladder: Ladder, choices: Choices) -> None:
    """Print how far sums of prices and `Choices.loss` are from what random sets lose."""
    random = np.random.default_rng(0)
    sets = []
    for share in np.repeat([0.1, 0.2, 0.3, 0.4], arguments.sets // 4):
        gone = np.zeros(len(choices.units), dtype=bool)
        # the dearest third is in no policy's plans
        allowed = choices.prices <= np.quantile(choices.prices, 0.67)
        for index in random.permutation(len(gone)):
            before = choices.before[index]
            if gone.sum() < share * len(gone) and allowed[index] and (before is None or gone[before]):
                gone[index] = True
        sets.append(gone)
    names = [tuple(choices.units[index] for index in np.flatnonzero(gone)) for gone in sets]
    measured = Measured(ladder, arguments)
    measured.measure({frozenset(units) for units in names} | {frozenset()})
    rows = []
    for count in sorted({len(units) for units in names}):
        those = [(gone, units) for gone, units in zip(sets, names, strict=True) if len(units) == count]
        real = np.array(
            [measured.known[frozenset(units)] - measured.known[frozenset()] for _, units in those]
        )
        summed = np.array([choices.prices @ gone for gone, _ in those])
        ladders = np.array([choices.loss(gone) - choices.losses[0] for gone, _ in those])
        figures = [real.mean(), summed.mean(), ladders.mean(), float(np.corrcoef(real, summed)[0, 1])]
        rows.append([str(count), str(len(those)), *(f"{figure:.3f}" for figure in figures)])
    print(table(["steps", "sets", "nats lost", "sum of prices", "ladder at that sum", "correlation"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    jobs: dict[str, Callable[[argparse.Namespace, Ladder, Choices], None]] = {
        job.__name__: job for job in (levels, decide, quality, tasks, additivity)
    }
    parser.add_argument("job", choices=list(jobs))
    parser.add_argument("ladder", type=Path)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--network", type=Path)
    parser.add_argument("--losses", type=Path, default=Path("losses.jsonl"))
    parser.add_argument("--scores", type=Path, default=Path("scores.json"))
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--requests", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", type=int, default=24)
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--tasks", default="arc_easy,winogrande")
    parser.add_argument("--policies", default="greedy,cost-aware,static set")
    arguments = parser.parse_args()
    ladder = read_ladder(arguments.ladder)
    jobs[arguments.job](arguments, ladder, choices_of(ladder))


if __name__ == "__main__":
    main()
