"""Losses of a student compared with its teacher, of which only the likeliest tokens are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

Kind = Literal["forward", "reverse", "both"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_TINY = 1e-6


@dataclass(frozen=True, slots=True)
class Targets:
    """A teacher's predictions for every position of windows of text.

    tokens: the likeliest next tokens, `[windows, length, k]` int32.
    logs: logarithms of their probabilities at the temperature of the run, `[windows, length, k]`.
    states: last hidden states `[windows, length, hidden_size]`, or None where they are not compared.
    """

    tokens: Tensor
    logs: Tensor
    states: Tensor | None = None

    def of(self, windows: Tensor, device: torch.device) -> Targets:
        """Return the targets of some windows, on `device`."""
        states = None if self.states is None else self.states[windows].to(device)
        return Targets(self.tokens[windows].to(device), self.logs[windows].to(device), states)


def likeliest(logits: Tensor, k: int, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the `k` likeliest tokens and the logarithms of their probabilities.

    logits: `[..., vocab_size]`. The tokens are int32, the logarithms float16, both `[..., k]`.
    """
    scaled = logits.float() / temperature
    top = scaled.topk(min(k, logits.shape[-1]), sorted=False)
    return top.indices.int(), (top.values - scaled.logsumexp(-1, keepdim=True)).half()


def divergence(logits: Tensor, tokens: Tensor, logs: Tensor, kind: Kind, temperature: float) -> Tensor:
    """Return the mean Kullback-Leibler divergence of teacher and student, times the temperature squared.

    logits: of the student, `[..., vocab_size]`.
    tokens, logs: of the teacher, as in `Targets`, `[..., k]`.
    kind: `forward` is KL(teacher || student) (Hinton, arXiv:1503.02531), `reverse` KL(student || teacher)
    (MiniLLM, arXiv:2306.08543), `both` the mean of the two.

    All tokens beyond the teacher's `k` count as one, which makes it a lower bound, exact where `k` is the
    whole vocabulary. The square keeps gradients of the same size at every temperature.
    """
    scaled = logits.float() / temperature if temperature != 1 else logits.float()
    mine = scaled.gather(-1, tokens.long()) - scaled.logsumexp(-1, keepdim=True)
    p = _with_rest(logs.float(), logits.shape[-1])
    q = _with_rest(mine, logits.shape[-1])
    forward = (p.exp() * (p - q)).sum(-1).mean() if kind != "reverse" else p.new_zeros(())
    reverse = (q.exp() * (q - p)).sum(-1).mean() if kind != "forward" else p.new_zeros(())
    return (forward + reverse) * temperature**2 * (0.5 if kind == "both" else 1.0)


def _with_rest(logs: Tensor, vocabulary: int) -> Tensor:
    """Append the logarithm of the other tokens' total probability, if there are other tokens."""
    if logs.shape[-1] == vocabulary:
        return logs
    rest = (1 - logs.exp().sum(-1, keepdim=True)).clamp_min(_TINY).log()
    return torch.cat([logs, rest], -1)


def state_distance(states: Tensor, targets: Tensor) -> Tensor:
    """Return the squared distance of states from targets, relative to the targets, mean over positions.

    states, targets: `[..., hidden_size]`.
    """
    wanted = targets.float()
    return ((states.float() - wanted).square().sum(-1) / wanted.square().sum(-1).clamp_min(_TINY)).mean()


def next_token(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the mean negative log likelihood, nats, of all tokens but the first of each window.

    logits: `[windows, length, vocab_size]`; tokens: `[windows, length]`.
    """
    return cross_entropy(logits[:, :-1].float().flatten(0, 1), tokens[:, 1:].flatten())
