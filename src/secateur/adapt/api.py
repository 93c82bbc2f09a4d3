"""The Python interface of `secateur adapt`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from secateur.adapt.ranking.rank import Rank
from secateur.adapt.ranking.rank import rank as rank_opened
from secateur.adapt.replay.replay import policies_of, replay, trace_of
from secateur.adapt.replay.simulate import Simulated
from secateur.adapt.replay.speed_model import speed_of
from secateur.adapt.training.train import TrainedPolicy, require_training, train
from secateur.core.progress import Progress, Silent
from secateur.model.handle import open_model
from secateur_runtime.files import refuse_existing
from secateur_runtime.ladder import Ladder
from secateur_runtime.ladder_file import read_ladder
from secateur_runtime.policies.q_network import Formulation
from secateur_runtime.read_costs import choices_of


def rank(
    model: str,
    out: str | Path | None = None,
    how: Rank | None = None,
    *,
    overwrite: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Ladder:
    """Return the ladder of a model, saved as `out` if given.

    Raises as `secateur.adapt.ranking.rank.rank` and `open_model` do.
    """
    ladder, _ = rank_opened(
        open_model(model),
        how,
        out=None if out is None else Path(out),
        overwrite=overwrite,
        seed=seed,
        progress=progress,
    )
    return ladder


def simulate(
    ladder: str | Path,
    trace: str = "bursts",
    policies: Sequence[str] = ("none", "greedy", "static"),
    *,
    budget: float = 0.8,
    requests: int = 50,
    seed: int = 0,
    network: str | Path | None = None,
    device: str = "local",
) -> list[Simulated]:
    """Replay a trace under each policy; return losses, kills, tokens and decisions.

    ladder: file written by `rank`. trace: `steady`, `drift`, `bursts`, or a recorded `.jsonl`. budget: memory
    of synthetic traces as a share of the need of each request. network: file of a trained policy. device: the
    device whose speed is assumed, `local` or a profile.
    Raises LadderError, TraceError and UsageError for invalid input.
    """
    choices = choices_of(read_ladder(Path(ladder)))
    moments = trace_of(trace, choices, budget=budget, requests=requests, seed=seed, per="request")
    chosen = policies_of(policies, choices, moments, None if network is None else Path(network))
    return list(replay(choices, chosen, moments, speed_of(device), {}, Silent()))


def train_policy(
    ladder: str | Path,
    out: str | Path,
    *,
    formulation: Formulation = "units",
    steps: int = 100_000,
    seed: int = 0,
    overwrite: bool = False,
) -> TrainedPolicy:
    """Train a policy by deep Q-learning and save its network as `out`.

    Raises MissingExtraError without stable-baselines3.
    """
    refuse_existing(Path(out), overwrite=overwrite)
    require_training()
    trained = train(
        choices_of(read_ladder(Path(ladder))),
        formulation=formulation,
        steps=steps,
        seed=seed,
        progress=Silent(),
    )
    trained.network.save(Path(out), overwrite=overwrite)
    return trained
