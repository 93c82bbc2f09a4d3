"""Running moments must equal the same moments of all inputs at once, in float64."""

from __future__ import annotations

from pathlib import Path

import torch
from tests.conftest import Maker

from secateur.calibrate.input_statistics import HiddenStates, collect, collect_passing
from secateur.model.handle import open_model


def _inputs(folder: str, tokens: torch.Tensor, tensor: str) -> torch.Tensor:
    stream = open_model(folder).stream()
    (states,) = stream.embed([tokens])
    seen: list[torch.Tensor] = []
    with stream.open(0) as block:
        block.tap((tensor,), states, lambda _tensor, x: seen.append(x))
    return seen[0].flatten(0, 1).double()


def test_moments_equal_the_direct_formula(tiny: Maker) -> None:
    folder = str(tiny("llama"))
    tokens = torch.randint(200, (60, 100), generator=torch.Generator().manual_seed(4))
    stream = open_model(folder).stream()
    hidden = HiddenStates(stream, tokens)
    assert len(list(hidden.batches())) > 1
    with stream.open(0) as block:
        stats = collect(block, block.block.linears, hidden, {"gram"}, seed=7)
        for linear in block.block.linears:
            x = _inputs(folder, tokens, linear.tensor)
            found = stats[linear.tensor]
            assert (found.tokens, found.seed) == (6000, 7)
            torch.testing.assert_close(found.input_sq.double(), x.square().mean(0), rtol=1e-5, atol=1e-9)
            torch.testing.assert_close(found.input_mean.double(), x.mean(0), rtol=1e-4, atol=1e-6)
            assert found.gram is not None
            torch.testing.assert_close(found.gram.double(), x.T @ x / len(x), rtol=1e-4, atol=1e-6)


def test_mean_sizes_are_those_of_whole_windows(tiny: Maker) -> None:
    folder = str(tiny("llama"))
    tokens = torch.randint(200, (60, 100), generator=torch.Generator().manual_seed(4))
    stream = open_model(folder).stream()
    hidden = HiddenStates(stream, tokens)
    with stream.open(0) as block:
        stats = collect(block, block.block.linears, hidden, {"input_abs"})
        for linear in block.block.linears:
            windows = _inputs(folder, tokens, linear.tensor).unflatten(0, (60, 100))
            expected = (sum(window.abs().mean(0).square() for window in windows) / 60) ** 0.5
            found = stats[linear.tensor]
            assert found.input_abs is not None
            assert found.gram is None
            torch.testing.assert_close(found.input_abs.double(), expected, rtol=1e-5, atol=1e-9)


def test_states_beyond_the_budget_live_in_a_file_and_are_the_same(tiny: Maker, tmp_path: Path) -> None:
    stream = open_model(str(tiny("llama"))).stream()
    tokens = torch.randint(200, (5, 64), generator=torch.Generator().manual_seed(6))
    in_memory, in_file = HiddenStates(stream, tokens), HiddenStates(stream, tokens, budget=0, folder=tmp_path)
    with stream.open(0) as block:
        in_memory.advance(block)
        in_file.advance(block)
    for ours, theirs in zip(in_memory.batches(), in_file.batches(), strict=True):
        assert torch.equal(ours, theirs)
    assert not list(tmp_path.iterdir()), "a scratch file must not outlive its run"


def test_nothing_needed_means_nothing_run(tiny: Maker) -> None:
    stream = open_model(str(tiny("llama"))).stream()
    hidden = HiddenStates(stream, torch.zeros(1, 8, dtype=torch.int64))
    with stream.open(0) as block:
        assert (
            collect(block, block.block.linears, hidden, frozenset())[block.block.linears[0].tensor].tokens
            == 0
        )


def test_moments_gathered_while_passing_are_the_same_and_the_states_move_on(tiny: Maker) -> None:
    stream = open_model(str(tiny("llama"))).stream()
    hidden = HiddenStates(stream, torch.randint(200, (60, 100), generator=torch.Generator().manual_seed(4)))
    passing = hidden.twin()
    with stream.open(0) as block:
        down, up = block.block.linears[-1].tensor, block.block.linears[-2].tensor
        found = collect_passing(block, {down: {"gram"}, up: set()}, passing, seed=7)
        apart = collect(block, block.block.linears, hidden, {"gram"}, seed=7)
        hidden.advance(block)
    assert found.keys() == {down, up}
    assert found[up].gram is None
    for name in found:
        assert (found[name].tokens, found[name].seed) == (6000, 7)
        torch.testing.assert_close(found[name].input_sq, apart[name].input_sq)
    torch.testing.assert_close(found[down].gram, apart[down].gram)
    for after, expected in zip(passing.batches(), hidden.batches(), strict=True):
        assert torch.equal(after, expected)
