"""The config of a planned model: what changes, and when stock classes load it."""

from __future__ import annotations

import pytest
from tests.conftest import Maker

from secateur.core.plan import Plan
from secateur.model.handle import open_model
from secateur.model.written.pruned_config import is_stock, planned_config, surviving_blocks

NARROW = {f"{index}.ffn": tuple(range(32)) for index in range(3)}


def test_an_empty_plan_changes_nothing_but_what_is_spelled_out(tiny: Maker) -> None:
    model = open_model(str(tiny("llama")))
    config = planned_config(model, Plan(model=""))
    assert {key for key in config if config[key] != model.source.config.get(key)} <= {"head_dim"}
    assert config["head_dim"] == 16


def test_equal_widths_stay_stock(tiny: Maker) -> None:
    model = open_model(str(tiny("llama")))
    plan = Plan(model="", keep={**NARROW, **{f"{index}.kv": (1,) for index in range(3)}})
    config = planned_config(model, plan)
    assert is_stock(model, plan)
    assert (config["intermediate_size"], config["num_attention_heads"], config["num_key_value_heads"]) == (
        32,
        2,
        1,
    )


def test_unequal_widths_name_a_modelling_file(tiny: Maker) -> None:
    model = open_model(str(tiny("llama")))
    plan = Plan(model="", keep={"0.ffn": tuple(range(32))}, drop=("1.attn",))
    config = planned_config(model, plan)
    assert not is_stock(model, plan)
    assert config["model_type"] == "secateur_llama"
    rows = config["block_shapes"]
    assert [row["intermediate_size"] for row in rows] == [32, 96, 96]
    assert [row["n_heads"] for row in rows] == [4, 0, 4]


@pytest.mark.parametrize(
    ("drop", "alive"),
    [((), (0, 1, 2)), (("1",), (0, 2)), (("0.attn", "0.ffn", "2.ffn"), (1, 2)), (("1.attn",), (0, 1, 2))],
)
def test_a_block_survives_with_one_sub_block(
    tiny: Maker, drop: tuple[str, ...], alive: tuple[int, ...]
) -> None:
    model = open_model(str(tiny("llama")))
    assert surviving_blocks(model.graph, Plan(model="", drop=drop)) == alive
    assert planned_config(model, Plan(model="", drop=drop))["num_hidden_layers"] == len(alive)


def test_the_types_of_dropped_blocks_go_with_them(tiny: Maker) -> None:
    model = open_model(str(tiny("gemma3_text")))
    kinds = model.source.config["layer_types"]
    config = planned_config(model, Plan(model="", drop=("0", "3")))
    assert config["layer_types"] == [kind for index, kind in enumerate(kinds) if index not in (0, 3)]


def test_fewer_channels_rescale_epsilon(tiny: Maker) -> None:
    model = open_model(str(tiny("llama")))
    config = planned_config(model, Plan(model="", keep={"hidden": tuple(range(48))}))
    assert config["hidden_size"] == 48
    assert config["rms_norm_eps"] == pytest.approx(1e-5 * 64 / 48)


def test_fewer_tokens_renumber_the_special_ones(tiny: Maker) -> None:
    model = open_model(str(tiny("llama")))
    tokens = (0, 2, *range(100, 150))
    config = planned_config(model, Plan(model="", keep={"vocab": tokens}))
    assert (config["vocab_size"], config["bos_token_id"], config["eos_token_id"]) == (52, 0, 1)
