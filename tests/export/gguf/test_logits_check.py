"""Divergences against their formula, and rounded inputs against the formula of llama.cpp's types."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from secateur.export.gguf.logits_check import EXACT, ask, inputs_rounded, largest_divergence, limit
from secateur.runtime import Generated, Memory
from secateur_runtime.errors import VerificationError


def _logprobs(*logits: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    values = np.array(logits)
    found: np.ndarray[tuple[int], np.dtype[np.float64]] = values - np.log(np.exp(values).sum())
    return found


def test_the_largest_divergence_counts() -> None:
    even = _logprobs(0, 0)
    skewed = np.log([0.25, 0.75])
    expected = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    assert largest_divergence([even, even], [even, skewed]) == pytest.approx(expected, rel=1e-12)
    assert largest_divergence([skewed], [skewed]) == 0
    with pytest.raises(
        VerificationError, match=r"^the file has a vocabulary of 3 tokens where the model has 2$"
    ):
        largest_divergence([even], [_logprobs(0, 0, 0)])


def test_what_rounding_explains_is_allowed() -> None:
    assert limit(0.0) == EXACT
    assert limit(1e-3) == pytest.approx(EXACT + 1e-2)


class _Echo:
    """A backend whose prediction is its prompt."""

    name = "echo"

    def logprobs(self, tokens: list[int]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        return np.array(tokens, np.float32)

    def generate(self, prompt: list[int], max_tokens: int) -> Generated:
        return Generated(tuple(prompt[:max_tokens]), 0.0, 0.0)

    def memory(self) -> Memory:
        return Memory(0, 0, 0)


def test_each_prompt_is_asked_in_double_precision() -> None:
    answers = ask(_Echo(), [[1, 2], [3]])  # type: ignore[arg-type]
    assert [answer.tolist() for answer in answers] == [[1.0, 2.0], [3.0]]
    assert {answer.dtype for answer in answers} == {np.dtype(np.float64)}


@pytest.mark.parametrize(
    ("kind", "dtype"), [("f16", torch.float16), ("bf16", torch.bfloat16), ("f32", torch.float32)]
)
def test_inputs_are_rounded_to_the_type(kind: str, dtype: torch.dtype) -> None:
    linear = nn.Linear(64, 8, bias=False)
    inputs = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), inputs_rounded(kind):
        rounded = linear(inputs)
    torch.testing.assert_close(rounded, linear(inputs.to(dtype).float()), rtol=0, atol=0)


def test_eight_bits_in_blocks_of_32() -> None:
    """The formula of q8_0: a float16 step for each 32 values, of their largest by 127."""
    identity = nn.Linear(64, 64, bias=False)
    nn.init.eye_(identity.weight)
    inputs = torch.randn(2, 64, generator=torch.Generator().manual_seed(1))
    inputs[0, 32:] = 0
    with torch.no_grad(), inputs_rounded("q8_0"):
        found = identity(inputs).numpy()
    for row, values in zip(found, inputs.numpy(), strict=True):
        for start in (0, 32):
            block = values[start : start + 32].astype(np.float64)
            step = np.abs(block).max() / 127
            codes = np.round(block / step) if step else block * 0
            np.testing.assert_allclose(
                row[start : start + 32], codes * np.float64(np.float16(step)), atol=1e-6
            )


def test_rounding_ends_with_the_block() -> None:
    linear = nn.Linear(32, 4)
    inputs = torch.randn(1, 32)
    before = linear(inputs)
    with pytest.raises(RuntimeError, match="stop"), inputs_rounded("q8_0"):
        raise RuntimeError("stop")
    assert torch.equal(linear(inputs), before)
