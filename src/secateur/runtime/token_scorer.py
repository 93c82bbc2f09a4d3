"""How likely given tokens are: many rows at once in torch, or one prediction after another in any backend."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from secateur.core.progress import Progress
from secateur.core.scorer import Scored, ScoreRequest

_BATCH_TOKENS = 1024
_HEAD_POSITIONS = 256
_WORTH = 8
"""Tokens that a common beginning must save."""
_ALIKE = 0.8
"""A batch runs as much of every beginning as is in its shortest, which has at least this share of the
longest.
"""


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows by number, whose inputs begin with the same `shared` tokens."""

    rows: tuple[int, ...]
    shared: int


class TorchScorer:
    """A causal language model of transformers on the CPU.

    What several rows begin with is run once, with its keys and values kept for all of them; batches hold rows
    of about the same length.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.context = int(model.config.max_position_embeddings)
        # transformers reads the number of tokens kept off the first layer of each kind, which has none where
        # attention was removed.
        self._keeps = all(layer.get_seq_length() == 1 for layer in self._cache([[0]]).layers)

    @torch.inference_mode()
    def score(self, rows: Sequence[ScoreRequest], progress: Progress) -> list[Scored]:
        """Return an answer for each row, in order; a row holds at most `context` + 1 tokens."""
        inputs = [[*row.context, *row.tokens][:-1] for row in rows]
        answers: dict[int, Scored] = {}
        for batch in _batches(
            _groups(rows) if self._keeps else [_Group((index,), 0) for index in range(len(rows))]
        ):
            shared = batch[-1].shared
            cache = self._cache([inputs[group.rows[0]][:shared] for group in batch]) if shared else None
            members = [(index, place) for place, group in enumerate(batch) for index in group.rows]
            for part in _of_like_length(members, inputs, shared):
                found = self._answers(
                    [(inputs[index][shared:], rows[index].tokens) for index, _ in part],
                    _copied(cache, part),
                    shared,
                )
                for (index, _), answer in zip(part, found, strict=True):
                    answers[index] = answer
                    progress.step()
        return [answers[index] for index in range(len(rows))]

    @torch.inference_mode()
    def _cache(self, beginnings: list[list[int]]) -> Any:
        from transformers import DynamicCache

        cache = DynamicCache(config=self._model.config)
        self._states(torch.tensor(beginnings), 0, cache)
        return cache

    def _states(self, tokens: Tensor, past: int, cache: Any) -> Tensor:
        positions = torch.arange(past, past + tokens.shape[1])[None]
        states: Tensor = self._model.get_decoder()(
            tokens, position_ids=positions, past_key_values=cache, use_cache=cache is not None
        ).last_hidden_state
        return states

    def _answers(self, rows: list[tuple[list[int], tuple[int, ...]]], cache: Any, past: int) -> list[Scored]:
        """Score `(input after the cache, tokens asked for)` rows.

        Causal attention never sees the padding behind a row.
        """
        longest = max(len(given) for given, _ in rows)
        tokens = torch.tensor([given + [0] * (longest - len(given)) for given, _ in rows])
        states = self._states(tokens, past, cache)
        asked = torch.cat(
            [
                states[number, len(given) - len(wanted) : len(given)]
                for number, (given, wanted) in enumerate(rows)
            ]
        )
        targets = torch.tensor([token for _, wanted in rows for token in wanted])
        logprobs, best = self._predicted(asked, targets)
        sizes = [len(wanted) for _, wanted in rows]
        return [
            Scored(float(each.sum()), bool(hits.all()))
            for each, hits in zip(logprobs.split(sizes), best.split(sizes), strict=True)
        ]

    def _predicted(self, states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probability of each target, and whether it was the likeliest token."""
        head = self._model.get_output_embeddings()
        cap = getattr(self._model.config, "final_logit_softcapping", None)
        logprobs = torch.empty(len(targets))
        best = torch.empty(len(targets), dtype=torch.bool)
        for start in range(0, len(targets), _HEAD_POSITIONS):
            here = slice(start, start + _HEAD_POSITIONS)
            logits = head(states[here]).float()
            logits = torch.tanh(logits / cap) * cap if cap else logits
            logprobs[here] = logits.log_softmax(-1).gather(1, targets[here, None]).squeeze(1)
            best[here] = logits.argmax(-1) == targets[here]
        return logprobs, best


def _copied(cache: Any, part: Sequence[tuple[int, int]]) -> Any:
    """Return the keys and values that each row of `part` begins with; the cache itself stays as it is."""
    if cache is None:
        return None
    fresh = copy.copy(cache)
    fresh.layers = [copy.copy(layer) for layer in cache.layers]
    fresh.batch_select_indices(torch.tensor([place for _, place in part]))
    return fresh


def _groups(rows: Sequence[ScoreRequest]) -> Iterator[_Group]:
    """Yield every row once, together with those whose contexts begin like its own where that saves work."""
    order = sorted(range(len(rows)), key=lambda index: (rows[index].context, rows[index].tokens))
    members = order[:1]
    shared = 0
    for before, index in pairwise(order):
        common = _common(rows[before].context, rows[index].context)
        common = min(common, shared) if len(members) > 1 else common
        # Tokens that the group takes without this row and those of the row, less what it takes with it.
        if common * len(members) - shared * (len(members) - 1) >= _WORTH:
            members = [*members, index]
            shared = common
        else:
            yield _Group(tuple(members), shared)
            members = [index]
            shared = 0
    if members:
        yield _Group(tuple(members), shared)


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """Return the length of the common prefix of two contexts.

    The last token of each never counts: the first scored token is predicted from it.
    """
    most = min(len(left), len(right)) - 1
    return next((place for place in range(most) if left[place] != right[place]), most)


def _batches(groups: Iterable[_Group]) -> Iterator[list[_Group]]:
    """Yield groups with about as much in common, the longest first; rows that stand alone come last."""
    batch: list[_Group] = []
    for group in sorted(groups, key=lambda group: -group.shared):
        if batch and (
            group.shared < _ALIKE * batch[0].shared or (group.shared + 1) * len(batch) >= _BATCH_TOKENS
        ):
            yield batch
            batch = []
        batch.append(group)
    if batch:
        yield batch


def _of_like_length(
    members: list[tuple[int, int]], inputs: Sequence[Sequence[int]], shared: int
) -> Iterator[list[tuple[int, int]]]:
    """Yield parts of `members`, `(row, place in the batch)`, the longest first."""
    part: list[tuple[int, int]] = []
    for member in sorted(members, key=lambda member: -len(inputs[member[0]])):
        if part and (len(part) + 1) * (len(inputs[part[0][0]]) - shared) > _BATCH_TOKENS:
            yield part
            part = []
        part.append(member)
    if part:
        yield part
