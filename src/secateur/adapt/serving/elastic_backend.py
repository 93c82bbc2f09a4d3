"""Elastic models for the worker, with their ladder and weights found or made."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from secateur.adapt.elastic.kernel_model import KINDS, check_kernels, open_kernels
from secateur.adapt.elastic.kernel_model import KV as KERNEL_KV
from secateur.adapt.elastic.torch_model import open_elastic
from secateur.adapt.memory_model import KernelMemory, MemoryModel
from secateur.adapt.serving.ladder_worker import make_ladder
from secateur.core.process_memory import give_back
from secateur.core.progress import Progress
from secateur.model.handle import ModelHandle
from secateur.runtime.elastic.model import Elastic
from secateur_runtime.decoder.kv_cache import ElasticCache
from secateur_runtime.errors import OutputError, UsageError
from secateur_runtime.ladder import Ladder
from secateur_runtime.ladder_file import read_ladder
from secateur_runtime.policies import AUTO, POLICIES, Choices, Policy, make_policy, usual
from secateur_runtime.read_costs import choices_of, priced
from secateur_runtime.server.engine.sampling import Logits

KV = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
"""Types of keys and values, by the name on the command line."""
NATIVE = "bf16"
"""The default type of weights in the kernels."""


class ElasticModel:
    """A StepModel over an elastic model; the memory model counts its bytes."""

    def __init__(self, model: Elastic, memory: MemoryModel) -> None:
        self._model = model
        self.vocabulary = model.vocab_size
        self.context = model.limit
        self.name = "native" if isinstance(memory, KernelMemory) else "elastic"
        self._memory = memory
        self._taken = self._count()

    @property
    def units(self) -> Sequence[str]:
        """The removed units."""
        return self._model.units

    @property
    def weights(self) -> int:
        """Bytes of the weights without the removed units."""
        return self._taken

    def set_units(self, units: Sequence[str]) -> None:
        """Remove exactly these units."""
        self._model.set_units(units)
        self._taken = self._count()

    def _count(self) -> int:
        return self._memory.weights(self._model.ladder.kept_without(self._model.units))

    def open(self, limit: int) -> ElasticCache:
        """Return an empty cache for at most `limit` tokens."""
        return self._model.open(limit)

    def prefill(self, tokens: Sequence[int], cache: ElasticCache) -> Logits:
        """Add tokens to a cache; return the logits after the last one, `[vocab_size]`."""
        found: Logits = self._model.prefill(tokens, cache).numpy()
        return found

    def decode(self, tokens: Sequence[int], caches: Sequence[ElasticCache]) -> Sequence[Logits]:
        """Add one token to each cache; return the logits after each, `[vocab_size]`."""
        return list(self._model.decode(tokens, caches).numpy())

    def give_back(self) -> None:
        """Return freed memory from the allocator to the system."""
        give_back()


@dataclass(frozen=True, slots=True, kw_only=True)
class Elasticity:
    """How a model is made elastic.

    folder: where ladders and weights are kept. ladder: file of the ladder; without one it is made in
    `folder`.
    policy: name of the policy, AUTO for the best one that the ladder allows. policy_file: file of a trained
    policy. kv: type of keys and values. threads: of the kernels, and to make a ladder.
    kind: type of weights in the kernels, a key of `KINDS`; empty for torch.
    """

    folder: Path
    ladder: Path | None = None
    policy: str = AUTO
    policy_file: Path | None = None
    kv: str = "f32"
    threads: int = 1
    kind: str = ""


def make_elastic(
    model: ModelHandle, how: Elasticity, progress: Progress
) -> tuple[ElasticModel, Choices, Policy]:
    """Return the whole model, the costs of its ladder, and the policy.

    Raises LadderError if the ladder belongs to another model, UsageError for an unknown policy or type, or if
    there are no kernels.
    """
    model = replace(model, kept_in=how.folder)
    _check(how, model)
    folder = how.folder / model.digest.removeprefix("sha256:")[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}") from error
    ladder = (
        read_ladder(how.ladder)
        if how.ladder
        else _own_ladder(model, folder / "ladder.json", how.threads, progress)
    )
    memory = (
        KernelMemory(model.graph, KINDS[how.kind], KV[how.kv])
        if how.kind
        else MemoryModel(model.graph, kv=KV[how.kv])
    )
    choices = replace(choices_of(ladder, kv_bytes=memory.kv.itemsize), activations=memory.activations)
    weights = (
        folder
        / f"weights-{choices.ladder.removeprefix('sha256:')[:16]}{how.kind and '-'}{how.kind}.safetensors"
    )
    name = usual(priced=priced(ladder)) if how.policy == AUTO else how.policy
    if not how.kind:
        policy = make_policy(name, choices, how.policy_file)
        return ElasticModel(open_elastic(model, ladder, weights, kv=memory.kv), memory), choices, policy
    choices = _taking(choices, ladder, memory)
    policy = make_policy(name, choices, how.policy_file)
    if not weights.exists():
        progress.note(
            f"no weights of {model.source.ref} in {how.kind} yet: they are written once, and kept in"
            f" {weights}"
        )
    elastic = open_kernels(model, ladder, weights, kind=how.kind, kv=memory.kv, threads=how.threads)
    return ElasticModel(elastic, memory), choices, policy


def _taking(choices: Choices, ladder: Ladder, memory: MemoryModel) -> Choices:
    """Return choices with the bytes that a memory model counts.

    The ladder itself counts the bytes in torch.
    """
    kept = [ladder.kept(level) for level in range(len(ladder))]
    weights = np.array([memory.weights(each) for each in kept], dtype=float)
    cache = np.array([memory.kv_values(each) * memory.kv.itemsize for each in kept], dtype=float)
    return replace(choices, weights=weights, cache=cache)


def _check(how: Elasticity, model: ModelHandle) -> None:
    """Raise UsageError for invalid options before a ladder is made, which takes minutes."""
    known = {name: kind for name, kind in KV.items() if not how.kind or kind in KERNEL_KV}
    if how.kv not in known:
        raise UsageError(f"--kv {how.kv}: keys and values are stored as {', '.join(known)}")
    if how.policy != AUTO:
        POLICIES[how.policy]
    if how.kind:
        check_kernels(model, how.kind)


def _own_ladder(model: ModelHandle, path: Path, threads: int, progress: Progress) -> Ladder:
    """Return the saved ladder of a model; rank the model first if there is none."""
    if not path.exists():
        progress.note(
            f"no ladder of {model.source.ref} yet: finding out what it can do without, once; this takes"
            f" minutes and is kept in {path}"
        )
        started = time.monotonic()
        make_ladder(model.source.ref, path, threads, progress)
        progress.note(f"ranked and priced in {time.monotonic() - started:.0f} s")
    return read_ladder(path)


def warm(model: ElasticModel) -> None:
    """Run one token, so that libraries make their one-time allocations before memory is read."""
    with model.open(2) as cache:
        logits = model.prefill([0], cache)
        assert np.isfinite(logits).all()
    model.give_back()
