"""`secateur adapt price` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.command import Secateur
from tests.conftest import Maker
from tests.ladders import ladder_for

from secateur.model.handle import open_model
from secateur_runtime.ladder_file import read_ladder


def test_price_writes_a_ladder_with_prices(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    model = open_model(str(tiny("llama")))
    ladder_for(model.graph, model.digest, ["1.attn", "1.ffn"]).save(tmp_path / "plain.json")
    options = ["-o", tmp_path / "priced.json", "--samples", 2, "--calib-window", 32, "--json"]
    code, out, err = secateur("adapt", "price", model.source.ref, tmp_path / "plain.json", *options)
    assert (code, err) == (0, "")
    assert json.loads(out)["prices"].keys() == {"1.attn", "1.ffn"}
    assert read_ladder(tmp_path / "priced.json").costs[0].keys() == {"1.attn", "1.ffn"}
    assert secateur("adapt", "price", model.source.ref, tmp_path / "plain.json", *options)[0] == 2
