"""Perplexity over fixed windows, and the divergence from a reference model, one block in memory at a time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from secateur.core.progress import Progress
from secateur.tensors.layer_stream import LayerStream
from secateur_runtime.record import Record

_BATCH_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class Quality:
    """Figures over all predicted tokens.

    nll: mean negative log likelihood, nats per token; nll_windows: the same per window.
    accuracy: share of tokens that were the likeliest next one.
    kl: mean KL(reference || model), nats per token; agreement: share of tokens with the same best next token
        (both `None` without a reference).

    Where the reference reads other tokens, its tokens are those of all figures, and `accuracy`, `kl` and
    `agreement` are `None`.
    per_token_of: the reference then; reference_nll: its own `nll` on the same characters; bits_per_byte: of
    the predicted text in UTF-8.
    """

    nll: float
    nll_windows: tuple[float, ...]
    tokens: int
    accuracy: float | None
    kl: float | None = None
    agreement: float | None = None
    per_token_of: str | None = None
    reference_nll: float | None = None
    bits_per_byte: float | None = None

    @property
    def perplexity(self) -> float:
        """Exponent of the mean negative log likelihood."""
        return _exponent(self.nll)

    @property
    def reference_perplexity(self) -> float | None:
        """Exponent of `reference_nll`."""
        return None if self.reference_nll is None else _exponent(self.reference_nll)

    @property
    def standard_error(self) -> float | None:
        """Standard error of `nll` over windows; `None` for a single one."""
        if len(self.nll_windows) < 2:
            return None
        return statistics.stdev(self.nll_windows) / math.sqrt(len(self.nll_windows))

    def records(self, protocol: str, model: str, plan: str = "") -> list[Record]:
        """Return the figures as records of the model, and of the plan, with these digests."""
        figures = (
            ("perplexity", self.perplexity, "perplexity", None),
            ("nll", self.nll, "nats per token", self.standard_error),
            ("next_token_accuracy", self.accuracy, "share", None),
            ("bits_per_byte", self.bits_per_byte, "bits per byte", None),
        )
        return [
            Record(
                name=name,
                value=value,
                unit=unit,
                protocol=protocol,
                model=model,
                plan=plan,
                standard_error=error,
            )
            for name, value, unit, error in figures
            if value is not None
        ]


def described(origin: str, digest: str, count: int, window: int, compute: str) -> str:
    """Return how perplexity is measured, in words; origin, digest: of the text."""
    return (
        f"{origin} ({digest[:19]}...), whole text tokenised, {count} windows of {window} tokens without"
        f" overlap, {compute}"
    )


def _exponent(nll: float) -> float:
    return math.exp(nll) if nll < 700 else math.inf


def measure(
    stream: LayerStream, windows: Tensor, progress: Progress, reference: LayerStream | None = None
) -> Quality:
    """Return the quality of a model on `windows` `[n, length]` of token ids.

    Each predicts its last `length - 1` tokens.
    """
    progress.start("evaluate", len(stream) + (len(reference) if reference else 0))
    logits = stream.logits(final_states(stream, windows, progress))
    dense = reference.logits(final_states(reference, windows, progress)) if reference else None
    return compare(logits, windows, dense)


def compare(logits: Iterator[Tensor], windows: Tensor, dense: Iterator[Tensor] | None = None) -> Quality:
    """Return the quality of logits.

    logits: chunks `[positions, vocab_size]` in the order of `windows`. windows: token ids, `[n, length]`.
    dense: logits of the reference in the same chunks, to be compared with.
    """
    columns = _per_token(logits, windows[:, 1:].flatten(), dense)
    nll = columns[0].view(len(windows), -1).mean(1)
    return Quality(
        nll=float(nll.mean()),
        nll_windows=tuple(nll.tolist()),
        tokens=columns.shape[1],
        accuracy=float(columns[1].mean()),
        kl=None if dense is None else float(columns[2].mean()),
        agreement=None if dense is None else float(columns[3].mean()),
    )


def final_states(stream: LayerStream, windows: Tensor, progress: Progress) -> Tensor:
    """Return final hidden states, all but the last of each window, `[positions, hidden_size]`."""
    step = max(1, _BATCH_TOKENS // windows.shape[1])
    states = torch.cat(list(stream.embed(windows.split(step))))
    for index in range(len(stream)):
        with stream.open(index) as block:
            for batch in states.split(step):
                batch.copy_(block(batch))
        progress.step(f"block {index}")
    return states[:, :-1].flatten(0, 1)


def _per_token(chunks: Iterator[Tensor], targets: Tensor, dense: Iterator[Tensor] | None) -> Tensor:
    """Return four figures of each token, `[4, tokens]`, float64.

    Negative log likelihood, accuracy, KL divergence and agreement (the last two zero without `dense`).
    """
    columns = torch.zeros(4, len(targets), dtype=torch.float64)
    start = 0
    for logits in chunks:
        here = slice(start, start + len(logits))
        start += len(logits)
        columns[0, here] = cross_entropy(logits, targets[here], reduction="none").double()
        best = logits.argmax(-1)
        columns[1, here] = (best == targets[here]).double()
        if dense is not None:
            expected = next(dense)
            divergence = kl_div(
                log_softmax(logits, -1), log_softmax(expected, -1), reduction="none", log_target=True
            )
            columns[2, here] = divergence.sum(-1).double()
            columns[3, here] = (best == expected.argmax(-1)).double()
    return columns
