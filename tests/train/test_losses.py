"""Losses against plain definitions in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from secateur.train.losses import Kind, Targets, divergence, likeliest, next_token, state_distance

VOCABULARY = 12


def _logits(seed: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return (
        torch.randn(2, 5, VOCABULARY, generator=draw) * 2,
        torch.randn(2, 5, VOCABULARY, generator=draw) * 2,
    )


def _plain(student: Tensor, teacher: Tensor, kind: str, temperature: float) -> float:
    p, q = ((logits.double() / temperature).log_softmax(-1) for logits in (teacher, student))
    forward, reverse = (p.exp() * (p - q)).sum(-1).mean(), (q.exp() * (q - p)).sum(-1).mean()
    return float(
        {"forward": forward, "reverse": reverse, "both": (forward + reverse) / 2}[kind] * temperature**2
    )


@pytest.mark.parametrize("kind", ["forward", "reverse", "both"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_with_the_whole_vocabulary_it_is_the_divergence(kind: Kind, temperature: float) -> None:
    student, teacher = _logits(0)
    tokens, logs = likeliest(teacher, VOCABULARY, temperature)
    assert float(divergence(student, tokens, logs, kind, temperature)) == pytest.approx(
        _plain(student, teacher, kind, temperature), rel=5e-3
    )


@given(seed=st.integers(0, 1000), k=st.integers(1, VOCABULARY - 1))
@settings(max_examples=40, deadline=None)
def test_with_fewer_it_is_the_divergence_of_those_and_the_rest_and_never_more(seed: int, k: int) -> None:
    student, teacher = _logits(seed)
    tokens, logs = likeliest(teacher, k, 1.0)
    p, q = (logits.double().softmax(-1).gather(-1, tokens.long()) for logits in (teacher, student))
    p, q = (torch.cat([part, 1 - part.sum(-1, keepdim=True)], -1) for part in (p, q))
    found = float(divergence(student, tokens, logs, "forward", 1.0))
    assert found == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), rel=2e-2, abs=2e-3)
    assert found <= _plain(student, teacher, "forward", 1.0) + 5e-3


@pytest.mark.parametrize("kind", ["forward", "reverse", "both"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_each_direction_counts_all_other_tokens_as_one(kind: Kind, temperature: float) -> None:
    student, teacher = _logits(4)
    tokens, logs = likeliest(teacher, 3, temperature)
    p, q = (
        (logits.double() / temperature).softmax(-1).gather(-1, tokens.long()) for logits in (teacher, student)
    )
    p, q = (torch.cat([part, 1 - part.sum(-1, keepdim=True)], -1) for part in (p, q))
    forward = float((p * (p / q).log()).sum(-1).mean())
    reverse = float((q * (q / p).log()).sum(-1).mean())
    expected = {"forward": forward, "reverse": reverse, "both": (forward + reverse) / 2}[kind]
    found = float(divergence(student, tokens, logs, kind, temperature))
    assert found == pytest.approx(expected * temperature**2, rel=5e-3)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_gradient_is_the_difference_of_the_probabilities(temperature: float) -> None:
    student, teacher = _logits(5)
    tokens, logs = likeliest(teacher, VOCABULARY, temperature)
    student.requires_grad_()
    divergence(student, tokens, logs, "forward", temperature).backward()
    p, q = ((logits.detach().double() / temperature).softmax(-1) for logits in (teacher, student))
    assert student.grad is not None
    torch.testing.assert_close(student.grad.double(), temperature * (q - p) / 10, rtol=0, atol=2e-4)


def test_the_likeliest_tokens_have_their_log_probabilities() -> None:
    _, teacher = _logits(6)
    tokens, logs = likeliest(teacher, 4, 2.0)
    exact = (teacher.double() / 2).log_softmax(-1)
    top = exact.topk(4)
    assert (tokens.dtype, logs.dtype) == (torch.int32, torch.float16)
    assert torch.equal(tokens.sort(-1).values.long(), top.indices.sort(-1).values)
    torch.testing.assert_close(logs.double(), exact.gather(-1, tokens.long()), rtol=1e-3, atol=1e-3)


def test_targets_of_some_windows_are_those_rows() -> None:
    whole = Targets(torch.arange(24).view(4, 3, 2), torch.rand(4, 3, 2), torch.rand(4, 3, 5))
    some = whole.of(torch.tensor([2, 0]), torch.device("cpu"))
    assert torch.equal(some.tokens, whole.tokens[[2, 0]])
    assert torch.equal(some.logs, whole.logs[[2, 0]])
    assert some.states is not None
    assert whole.states is not None
    assert torch.equal(some.states, whole.states[[2, 0]])


def test_a_student_that_says_the_same_has_nothing_to_learn() -> None:
    teacher, _ = _logits(1)
    student = teacher.clone().requires_grad_()
    tokens, logs = likeliest(teacher, 4, 1.0)
    loss = divergence(student, tokens, logs, "forward", 1.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-3)
    assert student.grad is not None
    assert float(student.grad.abs().max()) < 1e-3


def test_a_teacher_sure_of_its_word_gives_finite_gradients() -> None:
    teacher = torch.zeros(1, 1, VOCABULARY)
    teacher[..., 3] = 200
    student = torch.zeros(1, 1, VOCABULARY, requires_grad=True)
    tokens, logs = likeliest(teacher, 2, 1.0)
    for kind in ("forward", "reverse"):
        divergence(student, tokens, logs, kind, 1.0).backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_states_and_text() -> None:
    student, teacher = _logits(2)
    expected = ((student - teacher).norm(dim=-1) / teacher.norm(dim=-1)).square().mean()
    assert float(state_distance(student, teacher)) == pytest.approx(float(expected), rel=1e-5)
    tokens = torch.randint(VOCABULARY, (2, 5))
    plain = (
        sum(
            cross_entropy(student[row, place], tokens[row, place + 1])
            for row in range(2)
            for place in range(4)
        )
        / 8
    )
    assert float(next_token(student, tokens)) == pytest.approx(float(plain), rel=1e-5)
