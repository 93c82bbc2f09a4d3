"""Text drawn from the model itself has the model's own distribution."""

from __future__ import annotations

import torch
from tests.conftest import Maker
from transformers import AutoModelForCausalLM

from secateur.calibrate.self_sampled import PROBE, probe, sample_windows
from secateur.model.handle import open_model


def test_drawn_tokens_are_as_surprising_as_the_model_expects(tiny: Maker) -> None:
    """At temperature 1 the mean negative log likelihood of the tokens is the mean entropy of the predictions.

    A lower temperature, or the likeliest tokens only, would make it smaller.
    """
    folder = tiny("llama")
    tokens = sample_windows(open_model(str(folder)), 40, 24, 0)
    assert tokens.shape == (40, 24)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        logs = plain(tokens).logits[:, :-1].double().log_softmax(-1)
    entropy = -(logs.exp() * logs).sum(-1)
    surprise = -logs.gather(-1, tokens[:, 1:, None]).squeeze(-1)
    deviation = float((surprise - entropy).std()) / surprise.numel() ** 0.5
    assert abs(float((surprise - entropy).mean())) < 4 * deviation
    assert 4 * deviation < 0.2


def test_every_window_starts_with_a_random_token(tiny: Maker) -> None:
    tokens = sample_windows(open_model(str(tiny("llama"))), 40, 2, 1)
    assert len(tokens[:, 0].unique()) > 20


def test_probe_tokens_are_the_same_each_time_and_of_those_allowed(tiny: Maker) -> None:
    model = open_model(str(tiny("llama")))
    tokens = probe(model)
    assert tokens.shape == PROBE
    assert torch.equal(tokens, probe(model))
    assert int(tokens.max()) < model.graph.vocab_size
    assert len(tokens.unique()) > 200
    assert set(probe(model, [5, 7, 11]).flatten().tolist()) == {5, 7, 11}
