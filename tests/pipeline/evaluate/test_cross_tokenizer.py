"""A model beside one that reads other tokens.

Figures per token of the latter, and what a recipe makes of them.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tests.conftest import Maker
from tests.tiny_models import TEXT
from tests.vocabularies import save_with_fewer_tokens
from transformers import AutoModelForCausalLM, AutoTokenizer

from secateur.calibrate.text import read_text, windows
from secateur.core.progress import Silent
from secateur.measure.perplexity import measure
from secateur.model.handle import open_model
from secateur.pipeline.evaluate.evaluate import evaluate
from secateur.pipeline.evaluate.native_model import NativeOptions
from secateur.pipeline.evaluate.verify import verify
from secateur_runtime.errors import UsageError
from secateur_runtime.kernels.library import kernels

WIDE = "木木 naïve 🌳 Pruning removes 森林 the parts 👩‍👩‍👧 e\u0301 2023 한국어 🌳🌳木"


@pytest.fixture(scope="module")
def parent(tiny: Maker) -> str:
    return str(tiny("llama"))


@pytest.fixture(scope="module")
def model(parent: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_with_fewer_tokens(Path(parent), tmp_path_factory.mktemp("fewer"), 20))


@pytest.fixture(scope="module")
def renumbered(parent: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_with_fewer_tokens(Path(parent), tmp_path_factory.mktemp("renumbered"), 1000))


def spent(folder: str, ids: list[int], context: int) -> float:
    """The negative log likelihood of what follows the first `context` of `ids`, by the formula in float64."""
    whole, row = AutoModelForCausalLM.from_pretrained(folder).double().eval(), torch.tensor(ids)
    with torch.no_grad():
        likely = whole(row[None]).logits[0, :-1].log_softmax(-1).gather(-1, row[1:, None])
    return -float(likely[context - 1 :].sum())


def test_figures_are_those_of_the_float64_formula(model: str, parent: str, tmp_path: Path) -> None:
    """On ASCII, where every token is whole characters: text cut and tokenised here, by stock tokenizers."""
    path, text = tmp_path / "text.txt", TEXT * 2
    path.write_text(text)
    assert text.isascii()
    theirs, ours = AutoTokenizer.from_pretrained(parent), AutoTokenizer.from_pretrained(model)
    ids = theirs(text)["input_ids"]
    sums, size, longer = [], 0, 0
    for start in range(0, 4 * 50, 50):
        context, predicted = theirs.decode(ids[start : start + 1]), theirs.decode(ids[start + 1 : start + 50])
        size += len(predicted)
        row = ours(context)["input_ids"] + ours(predicted)["input_ids"]
        longer += len(row) - 50
        sums.append(spent(model, row, len(ours(context)["input_ids"])))
    assert longer > 20
    found, dense = (
        evaluate(model, text=str(path), window=50, count=4, reference=parent),
        evaluate(parent, text=str(path), window=50, count=4),
    )
    assert found.nll == pytest.approx(sum(sums) / (4 * 49), rel=1e-6)
    assert found.nll_windows == pytest.approx([one / 49 for one in sums], rel=1e-6)
    assert found.perplexity == pytest.approx(math.exp(sum(sums) / (4 * 49)), rel=1e-5)
    assert found.bits_per_byte == pytest.approx(sum(sums) / math.log(2) / size, rel=1e-6)
    assert found.reference_perplexity == pytest.approx(dense.perplexity, rel=1e-5)
    assert (found.tokens, found.per_token_of) == (4 * 49, parent)
    assert (found.accuracy, found.kl, found.agreement) == (None, None, None)


def test_characters_of_several_bytes(model: str, parent: str, tmp_path: Path) -> None:
    """Cut here by bytes of single tokens, which this alphabet maps to letters one by one."""
    path, wide = tmp_path / "wide.txt", WIDE * 5
    path.write_text(wide)
    theirs, ours = AutoTokenizer.from_pretrained(parent), AutoTokenizer.from_pretrained(model)
    ids, data = theirs(wide)["input_ids"], wide.encode()
    places = [0]
    for token in theirs.convert_ids_to_tokens(ids):
        places.append(places[-1] + len(token))
    begins = {len(wide[:place].encode()) for place in range(len(wide) + 1)}
    total, beside, units, split = 0.0, 0.0, 0, 0
    for start in range(0, 6 * 16, 16):
        whole = [place for place in range(start + 1, start + 17) if places[place] in begins]
        split += (whole[0] > start + 1) + (whole[-1] < start + 16)
        first = max(place for place in begins if place <= places[start])
        context = ours(data[first : places[whole[0]]].decode())["input_ids"]
        total += spent(
            model,
            context + ours(data[places[whole[0]] : places[whole[-1]]].decode())["input_ids"],
            len(context),
        )
        beside += spent(parent, ids[start : whole[-1]], whole[0] - start)
        units += whole[-1] - whole[0]
    assert split > 2
    found = evaluate(model, text=str(path), window=16, count=6, reference=parent)
    assert found.tokens == units
    assert found.nll == pytest.approx(total / units, rel=1e-6)
    assert found.reference_nll == pytest.approx(beside / units, rel=1e-6)


def test_the_same_tokens_give_what_they_gave(tiny: Maker, parent: str) -> None:
    other = str(tiny("llama", rms_norm_eps=0.1))
    tokens = windows(read_text("builtin"), AutoTokenizer.from_pretrained(other), 64, 3)
    assert evaluate(other, window=64, count=3, reference=parent) == measure(
        open_model(other).stream(), tokens, Silent(), open_model(parent).stream()
    )


def test_ids_in_another_order_change_nothing(renumbered: str, parent: str, tmp_path: Path) -> None:
    """Digits are tokens of their own, so that both read a window alike; the vocabularies are of one size."""
    (tmp_path / "digits.txt").write_text("31415926535897932384626433832795028841971693993751" * 3)
    found = evaluate(renumbered, text=str(tmp_path / "digits.txt"), window=40, count=3, reference=parent)
    assert found.per_token_of == parent
    assert found.reference_nll is not None
    assert found.nll == pytest.approx(found.reference_nll, rel=1e-6)


def test_a_window_does_not_depend_on_others(model: str, parent: str) -> None:
    few, many = (evaluate(model, window=30, count=count, reference=parent).nll_windows for count in (2, 7))
    assert few == pytest.approx(many[:2], rel=1e-6)


def test_natively(model: str, parent: str) -> None:
    if kernels() is None:
        pytest.skip("no kernels here")
    ours, theirs = (
        evaluate(model, window=50, count=3, reference=parent, native=native)
        for native in (NativeOptions(kind="f32", exact=True), None)
    )
    assert ours.nll_windows == pytest.approx(theirs.nll_windows, rel=1e-5)
    assert ours.reference_nll == theirs.reference_nll


def test_too_few_positions_are_one_line(model: str, parent: str) -> None:
    with pytest.raises(
        UsageError,
        match=r"^250 tokens of .* take up to \d+ positions in .*, which has 256: give --window \d+ or fewer$",
    ) as caught:
        evaluate(model, window=250, count=2, reference=parent)
    fits = int(str(caught.value).rpartition("--window ")[2].split()[0])
    assert evaluate(model, window=fits - 20, count=2, reference=parent).tokens == 2 * (fits - 21)


def test_verify_refuses_in_one_line(model: str, parent: str) -> None:
    with pytest.raises(UsageError, match=r"has another vocabulary than .*: use secateur eval --reference"):
        verify(model, reference=parent)
