"""A transformers model in memory, with its key-value cache."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.runtime import Generated, Memory
from secateur.runtime.process import process_memory


class TorchBackend:
    """A causal language model of transformers on the CPU."""

    name = "torch"

    def __init__(self, model: Any) -> None:
        self._model = model

    @torch.inference_mode()
    def logprobs(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Return the log-probabilities (nats) of the token after `tokens`, `[vocab_size]`."""
        logits = self._model(torch.tensor([list(tokens)]), use_cache=False, logits_to_keep=1).logits[0, -1]
        found: NDArray[np.float32] = torch.log_softmax(logits.double(), -1).float().numpy()
        return found

    @torch.inference_mode()
    def generate(self, prompt: Sequence[int], max_tokens: int) -> Generated:
        """Return `max_tokens` tokens after `prompt`, chosen greedily."""
        from transformers import DynamicCache

        cache = DynamicCache(config=self._model.config)
        start = time.perf_counter()
        found = [self._next(torch.tensor([list(prompt)]), 0, cache)]
        first = time.perf_counter()
        while len(found) < max_tokens:
            found.append(self._next(torch.tensor([[found[-1]]]), len(prompt) + len(found) - 1, cache))
        return Generated(tuple(found), first - start, time.perf_counter() - first)

    def memory(self) -> Memory:
        """Return the memory of this process."""
        return process_memory()

    def _next(self, tokens: Tensor, past: int, cache: Any) -> int:
        # Said explicitly: transformers takes the position from the cache of block 0, which has none where its
        # attention was removed.
        positions = torch.arange(past, past + tokens.shape[1])[None]
        logits = self._model(
            tokens, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
        ).logits
        return int(logits[0, -1].argmax())
