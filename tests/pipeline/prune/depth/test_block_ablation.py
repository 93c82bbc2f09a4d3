"""The cost of removals is that of whole models of transformers whose sub-blocks give nothing."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import Maker
from tests.pipeline.prune.masking import masked_model
from torch import Tensor
from torch.nn.functional import cosine_similarity, kl_div, log_softmax
from transformers import AutoModelForCausalLM

from secateur.core.plan import Plan
from secateur.criteria.depth import DEPTH_CRITERIA
from secateur.model.handle import ModelHandle, open_model
from secateur.pipeline.prune.depth.block_ablation import BlockAblation, Removal, passing, predicted

TOKENS = torch.randint(200, (3, 24), generator=torch.Generator().manual_seed(5))


@pytest.fixture
def model(tiny: Maker) -> ModelHandle:
    return open_model(str(tiny("llama")))


def test_each_removal_costs_what_the_masked_model_predicts_otherwise(
    tiny: Maker, model: ModelHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    drops: list[tuple[str, ...]] = [(), ("1",), ("1.attn",), ("1", "2.ffn"), ("0.ffn", "2.attn")]

    def logs(drop: tuple[str, ...]) -> Tensor:
        whole = masked_model(tiny("llama"), Plan(model="", drop=drop))
        with torch.no_grad():
            return log_softmax(whole(TOKENS, use_cache=False).logits[:, :-1].flatten(0, 1).double(), -1)

    dense = logs(())
    meant = [
        float(kl_div(logs(drop), dense, reduction="none", log_target=True).sum(-1).mean()) for drop in drops
    ]
    costs = BlockAblation(model.stream(), model.graph.blocks, TOKENS, DEPTH_CRITERIA["kl"].function)
    removals = [Removal(drop) for drop in drops]
    assert costs(removals) == pytest.approx(meant, rel=1e-3, abs=1e-6)
    # One variant a pass gives the same.
    monkeypatch.setattr("secateur.pipeline.prune.compared_positions.MEMORY", 1)
    assert costs(removals) == pytest.approx(meant, rel=1e-3, abs=1e-6)


def test_last_states_are_compared_instead(model: ModelHandle) -> None:
    criterion = DEPTH_CRITERIA["laco"].function
    costs = BlockAblation(model.stream(), model.graph.blocks, TOKENS, criterion, last=True)
    (states,) = model.stream().embed([TOKENS])
    finals = []
    for skipped in (None, 1):
        now = states
        for index in range(3):
            with model.stream().open(index) as live:
                now = now if index == skipped else live(now)
        finals.append(now[:, :-1].flatten(0, 1))
    meant = float((1 - cosine_similarity(finals[0], finals[1], dim=-1)).mean())
    assert costs([Removal(), Removal(("1",))]) == pytest.approx([0, meant], rel=1e-4, abs=1e-6)


def test_rows_of_models_are_kept_apart(model: ModelHandle) -> None:
    """More positions than one chunk of logits holds; a criterion that tells models and positions apart."""
    generator = torch.Generator().manual_seed(1)
    dense, first, second = (torch.randn(300, 64, generator=generator) for _ in range(3))
    targets = torch.randint(200, (300,), generator=generator)

    def criterion(whole: Tensor, other: Tensor, following: Tensor) -> Tensor:
        places = torch.arange(len(following))
        return whole[places, following] - 2 * other[places, following]

    found = predicted(model.stream(), criterion, dense, [first, second], targets)
    logits = [torch.cat(list(model.stream().logits(rows))).double() for rows in (dense, first, second)]
    chosen = [one.gather(1, targets[:, None]).squeeze(1) for one in logits]
    meant = [float((chosen[0] - 2 * other).mean()) for other in chosen[1:]]
    assert found == pytest.approx(meant, rel=1e-5)


@pytest.mark.parametrize("last", [False, True])
def test_states_that_pass_are_those_of_transformers(tiny: Maker, model: ModelHandle, last: bool) -> None:
    whole = AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.float32).eval()
    seen: list[Tensor] = []
    for layer in whole.model.layers:
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    whole.model.norm.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    with torch.no_grad():
        whole(TOKENS, use_cache=False)
    found, places = passing(model.stream(), TOKENS, last=last)
    assert len(found) == len(seen) == 7
    for ours, theirs in zip(found, seen, strict=True):
        meant = theirs[:, -1] if last else theirs.flatten(0, 1)
        torch.testing.assert_close(ours, meant, rtol=1e-4, atol=1e-5)
    assert [places(1, part) for part in ("", "attn", "ffn")] == [(2, 4), (2, 3), (3, 4)]
