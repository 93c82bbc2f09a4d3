"""A card says what was measured on the very weights it describes, in words and as the hub reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from tests.cli.command import Secateur
from tests.conftest import Maker

from secateur.model.handle import open_model
from secateur.pipeline.compare.model_card import card
from secateur.pipeline.prune.prune import prune
from secateur.pipeline.prune.width.decide import Width
from secateur.present.comparison_folder import ComparisonJob, ComparisonRow, RowPart, write_part
from secateur.present.model_index import BEGIN
from secateur_runtime.errors import OutputError, RecordError, UsageError

WIDTH = ComparisonRow("width", "ratio=0.2", "structured")


@pytest.fixture
def pruned(tiny: Maker, tmp_path: Path) -> Path:
    prune(
        str(tiny("llama")),
        tmp_path / "pruned",
        Width(ratio=0.3, align=8, criterion="magnitude", repair="none"),
    )
    return tmp_path / "pruned"


def _measured(secateur: Secateur, model: Path, file: Path) -> Path:
    code, out, _ = secateur("eval", model, "--window", "64", "-n", "2", "--json")
    assert code == 0
    file.write_text(out)
    return file


def test_what_eval_printed(secateur: Secateur, tiny: Maker, tmp_path: Path, pruned: Path) -> None:
    ours = _measured(secateur, pruned, tmp_path / "ours.json")
    dense = _measured(secateur, tiny("llama"), tmp_path / "dense.json")
    before = (pruned / "README.md").read_text()
    code, out, _ = secateur("card", pruned, "--records", ours, "--records", dense, "--json")
    assert code == 0
    body = json.loads(out)
    assert body["indexed"] == len(["perplexity", "next_token_accuracy"])
    read = ModelCard.load(pruned / "README.md")
    assert {result.metric_type: result.metric_value for result in read.data.eval_results or []} == {
        "perplexity": json.loads(ours.read_text())["perplexity"],
        "accuracy": json.loads(ours.read_text())["next_token_accuracy"],
    }
    assert read.data.model_name == "pruned"
    assert read.data.tags == ["pruned", "secateur"]
    assert f"{json.loads(dense.read_text())['perplexity']:.6g}" in read.text, "the dense figure is next to it"
    assert before.partition("---\n\n")[2].strip() in read.text.replace("\r", ""), "the rest of the card stays"


def test_twice_is_once(secateur: Secateur, tmp_path: Path, pruned: Path) -> None:
    ours = _measured(secateur, pruned, tmp_path / "ours.json")
    card(str(pruned), files=[ours])
    once = (pruned / "README.md").read_text()
    card(str(pruned), files=[ours])
    assert (pruned / "README.md").read_text() == once
    assert once.count(BEGIN) == 1


def test_the_row_with_these_weights(tiny: Maker, tmp_path: Path, pruned: Path) -> None:
    from secateur_runtime.record import Record

    source, digest = open_model(str(tiny("llama"))).digest, open_model(str(pruned)).digest
    dense = ComparisonRow("dense", "", "dense")
    ComparisonJob(ref="x", name="x", digest=source, parameters=1, protocols={}, rows=(dense, WIDTH)).write(
        tmp_path / "compared"
    )
    for row, weights, value in ((dense, "", 20.0), (WIDTH, digest, 25.0)):
        figures = Record(
            name="perplexity",
            value=value,
            unit="perplexity",
            protocol="wiki.raw (sha256:0...), by hand",
            model=source,
        )
        write_part(tmp_path / "compared", row, "pruned", RowPart(source=source, weights=weights))
        write_part(tmp_path / "compared", row, "quality", RowPart(source=source, records=(figures,)))
    made = card(str(pruned), compared=tmp_path / "compared", out=tmp_path / "card.md")
    text = (tmp_path / "card.md").read_text()
    assert [record.value for record in made.records] == [25.0]
    assert "| perplexity | 25 | 20 |" in text
    assert "dataset:\n" in text
    assert "type: wiki.raw" in text
    with pytest.raises(OutputError, match="add --overwrite"):
        card(str(pruned), compared=tmp_path / "compared", out=tmp_path / "card.md")
    with pytest.raises(RecordError, match="has no row with these weights"):
        card(str(tiny("qwen2")), compared=tmp_path / "compared", out=tmp_path / "other.md")
    assert not (tmp_path / "other.md").exists()


def test_a_folder_without_a_card(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    model = tiny("llama")
    made = card(str(model), files=[_measured(secateur, model, tmp_path / "a.json")], out=tmp_path / "card.md")
    assert made.path == tmp_path / "card.md"
    assert ModelCard.load(made.path).data.library_name == "transformers"


def test_mistakes_are_one_line(secateur: Secateur, tiny: Maker, tmp_path: Path, pruned: Path) -> None:
    dense = _measured(secateur, tiny("llama"), tmp_path / "dense.json")
    other = _measured(secateur, tiny("qwen2"), tmp_path / "other.json")
    (tmp_path / "cut.json").write_text(dense.read_text()[:100])
    before = (pruned / "README.md").read_text()
    for options, message in (
        ([], "nothing was measured"),
        (["--records", dense], "only of the model it was pruned from"),
        (["--records", other], "of another model"),
        (["--records", tmp_path / "cut.json"], "is not what `secateur eval --json`"),
        (["--records", tmp_path / "none.json"], "cannot read"),
        (["--compare", tmp_path], "holds no compare.json"),
    ):
        code, out, err = secateur("card", pruned, *options)
        assert (code, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1
    assert (pruned / "README.md").read_text() == before
    with pytest.raises(UsageError, match="is no folder"):
        card(str(tmp_path / "none"), files=[dense])
    (pruned / "README.md").write_text("---\n- a list\n---\n")
    with pytest.raises(RecordError, match="metadata cannot be read"):
        card(str(pruned), files=[_measured(secateur, pruned, tmp_path / "ours.json")])
