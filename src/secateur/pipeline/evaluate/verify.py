"""Prove that a folder is whole, finite and what it says it is."""

from __future__ import annotations

import json
from contextlib import nullcontext, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import torch
from torch import Tensor

from secateur.calibrate.text import read_text, windows
from secateur.core.folder_files import MANIFEST, PLAN
from secateur.core.pattern import Pattern
from secateur.core.plan import Plan
from secateur.core.progress import Progress, Silent
from secateur.measure.perplexity import Quality, measure
from secateur.model.formats.compressed_tensors import PackedSource
from secateur.model.formats.open_source import local_path
from secateur.model.formats.sparse_folder import SparseSource
from secateur.model.full_model import load_whole
from secateur.model.handle import ModelHandle, open_model
from secateur.model.written.checkpoint import file_digest
from secateur.model.written.plan_file import plan_beside
from secateur.model.written.reload_check import model_logits
from secateur.transform.mask import holds
from secateur_runtime.errors import (
    MissingCheckerError,
    MissingExtraError,
    SourceError,
    UsageError,
    VerificationError,
)

_WINDOW = 128
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Verified:
    """What was checked.

    shards: weight files whose digests match the manifest (0 where there is no manifest).
    pruned: tensors whose zeros match the plan.
    stock_difference: largest difference of the logits of stock transformers from ours, relative to their
    largest value; 0 for a file, which is not compared.
    quality: perplexity, divergence from the reference and agreement with it, where one was given.
    """

    shards: int
    tensors: int
    pruned: int
    stock_difference: float
    quality: Quality | None


def verify(
    ref: str, *, reference: str | None = None, text: str = "builtin", progress: Progress | None = None
) -> Verified:
    """Check a model; raises VerificationError naming the first thing that is wrong.

    ref: as `open_model` takes it; `~` is the home directory.
    Digests and sparsities are checked where `secateur.json` and `plan.json` lie next to the weights. Every
    weight must be finite. Stock transformers must load the folder and give our logits. `reference` adds the
    divergence from that model; raises UsageError if it has another vocabulary.
    Raises MissingCheckerError where a package is missing that reads the weights.
    """
    try:
        return _verified(ref, reference, text, progress or Silent())
    except MissingExtraError as error:
        raise MissingCheckerError(f"{ref} cannot be checked: {error}") from None


def _verified(ref: str, reference: str | None, text: str, progress: Progress) -> Verified:
    model = open_model(ref)
    folder = local_path(ref)
    other = open_model(reference) if reference else None
    if other and other.graph.vocab_size != model.graph.vocab_size:
        raise UsageError(
            f"{reference} has another vocabulary than {ref}, so single tokens cannot be compared: use"
            " secateur eval --reference"
        )
    progress.start("verify", len(model.graph.tensors) + 1)
    shards = _check_digests(folder) if (folder / MANIFEST).is_file() else 0
    _check_finite(model, progress)
    plan = plan_beside(ref)
    pruned = _check_plan(model, plan, folder / PLAN) if plan else 0
    tokens = windows(read_text(text), model.source.tokenizer(), _WINDOW, 4)
    difference = _against_stock(model, folder, tokens[:1]) if folder.is_dir() else 0.0
    progress.step("stock transformers")
    quality = measure(model.stream(), tokens, progress, other.stream()) if other else None
    return Verified(shards, len(model.graph.tensors), pruned, difference, quality)


def _check_digests(folder: Path) -> int:
    try:
        shards = dict(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["shards"])
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{folder / MANIFEST} is damaged ({error}); write the model again") from None
    for name, digest in shards.items():
        if not (folder / name).is_file() or file_digest(folder / name) != digest:
            raise VerificationError(f"{folder / name} is missing or was changed after it was written")
    return len(shards)


def _check_finite(model: ModelHandle, progress: Progress) -> None:
    for name in model.graph.tensors:
        if not torch.isfinite(model.source.read(name)).all():
            raise VerificationError(f"{model.source.ref}: {name} holds NaN or infinite weights")
        progress.step(name)


def _check_plan(model: ModelHandle, plan: Plan, path: Path) -> int:
    for name, text in plan.sparsity.items():
        if name not in model.graph.tensors:
            raise VerificationError(f"{path} prunes {name}, which {model.source.ref} does not have")
        if not holds(model.source.read(name), Pattern.parse(text)):
            raise VerificationError(f"{name} does not have the sparsity {text} that {path} gives it")
    return len(plan.sparsity)


def _against_stock(model: ModelHandle, folder: Path, tokens: Tensor) -> float:
    """Load the folder the way any user of transformers would and compare logits, `[tokens, vocab_size]`."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    # compressed-tensors draws bars of its own, and knows no way not to.
    with (
        redirect_stderr(StringIO()) if isinstance(model.source, PackedSource) else nullcontext(),
        torch.no_grad(),
    ):
        # Stock transformers has no word for weights without zeros: its modules get them put back.
        sparse = isinstance(model.source, SparseSource)
        loaded = (
            load_whole(model) if sparse else AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        )
        expected = loaded(tokens).logits[0]
    ours = model_logits(model.stream(), tokens)
    difference = float((ours - expected).abs().max() / expected.abs().max())
    if not difference <= _TOLERANCE:
        raise VerificationError(
            f"stock transformers computes other logits from {folder} (relative difference {difference:.1e})"
        )
    return difference
