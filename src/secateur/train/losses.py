"""How far a student's predictions are from its teacher's, of which only the likeliest tokens are known."""

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
    """What a teacher said about windows of text, for every position.

    tokens: the likeliest next ones, `[windows, length, k]` int32.
    logs: logarithms of their probabilities at the temperature of the run, `[windows, length, k]`.
    states: last hidden states `[windows, length, hidden_size]`, or None where they are not compared.
    """

    tokens: Tensor
    logs: Tensor
    states: Tensor | None = None

    def of(self, windows: Tensor, device: torch.device) -> Targets:
        """Return those of some windows, on `device`."""
        states = None if self.states is None else self.states[windows].to(device)
        return Targets(self.tokens[windows].to(device), self.logs[windows].to(device), states)


def likeliest(logits: Tensor, k: int, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the `k` likeliest tokens, int32, and the logarithms of their probabilities, float16, of logits `[..., vocab_size]`."""
    scaled = logits.float() / temperature
    top = scaled.topk(min(k, logits.shape[-1]), sorted=False)
    return top.indices.int(), (top.values - scaled.logsumexp(-1, keepdim=True)).half()


def divergence(logits: Tensor, tokens: Tensor, logs: Tensor, kind: Kind, temperature: float) -> Tensor:
    """Return the mean Kullback-Leibler divergence between teacher and student, times the square of the temperature.

    logits: of the student, `[..., vocab_size]`; tokens, logs: of the teacher, as `Targets` has them, `[..., k]`.
    All tokens beyond the teacher's `k` count as one, which makes it a lower bound, exact where `k` is the whole vocabulary.
    `forward` is KL(teacher || student) (Hinton, arXiv:1503.02531), `reverse` KL(student || teacher) (MiniLLM,
    arXiv:2306.08543), `both` the mean of the two. The square keeps gradients of the same size at every temperature.
    """
    scaled = logits.float() / temperature if temperature != 1 else logits.float()
    mine = scaled.gather(-1, tokens.long()) - scaled.logsumexp(-1, keepdim=True)
    p = _with_rest(logs.float(), logits.shape[-1])
    q = _with_rest(mine, logits.shape[-1])
    forward = (p.exp() * (p - q)).sum(-1).mean() if kind != "reverse" else p.new_zeros(())
    reverse = (q.exp() * (q - p)).sum(-1).mean() if kind != "forward" else p.new_zeros(())
    return (forward + reverse) * temperature**2 * (0.5 if kind == "both" else 1.0)


def _with_rest(logs: Tensor, vocabulary: int) -> Tensor:
    """Append the logarithm of what all other tokens have together; nothing where there are no others."""
    if logs.shape[-1] == vocabulary:
        return logs
    rest = (1 - logs.exp().sum(-1, keepdim=True)).clamp_min(_TINY).log()
    return torch.cat([logs, rest], -1)


def state_distance(states: Tensor, targets: Tensor) -> Tensor:
    """Return the squared distance of states `[..., hidden_size]` relative to the targets' size, mean over positions."""
    wanted = targets.float()
    return ((states.float() - wanted).square().sum(-1) / wanted.square().sum(-1).clamp_min(_TINY)).mean()


def next_token(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the mean negative log likelihood of the tokens `[windows, length]` after the first, given logits of the same positions."""
    return cross_entropy(logits[:, :-1].float().flatten(0, 1), tokens[:, 1:].flatten())
