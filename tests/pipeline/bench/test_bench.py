"""Figures of models against a baseline, and the command that shows them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tests.conftest import Maker

from secateur.cli.main import run as main
from secateur.pipeline.bench.bench import BenchSettings, bench
from secateur_runtime.errors import UsageError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (BenchSettings(backend="torhc"), r"unknown --backend 'torhc' \(did you mean torch\?\)"),
        (
            BenchSettings(kind="q4_0"),
            "--type q4_0 is not one that torch computes in: use f32 or bf16, or --backend llamacpp",
        ),
        (BenchSettings(threads=9999), "--threads 9999: this machine lets us use"),
        (BenchSettings(tokens=1), "--tokens must be at least 2"),
        (BenchSettings(prompt=250, tokens=7), "has a context of 256 tokens: lower --prompt or --tokens"),
    ],
)
def test_settings_that_cannot_work(tiny: Maker, settings: BenchSettings, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        bench(str(tiny("llama")), settings=settings)


def test_torch(tiny: Maker) -> None:
    (found,) = bench(str(tiny("llama")), settings=BenchSettings(prompt=16, tokens=4, repeat=2, kind="bf16"))
    assert found.ratio is None
    assert found.speeds["prompt"].low <= found.speeds["prompt"].median <= found.speeds["prompt"].high
    assert found.file_bytes == (tiny("llama") / "model.safetensors").stat().st_size
    records = {record.name: record for record in found.records(BenchSettings(prompt=16, tokens=4, repeat=2))}
    assert records["decode"].unit == "tokens/s"
    assert records["peak_memory"].value == found.peak_memory > 1 << 20
    assert "16 tokens of prompt" in records["first"].protocol


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["secateur", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
        sys.exit(0)
    return int(stopped.value.code or 0)


def test_the_command(
    tiny: Maker, tiny_gguf: Maker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder is exported first, a GGUF file is taken as it is."""
    pytest.importorskip("xllamacpp", reason="pip install 'secateur[llamacpp]'")
    shape = [
        "--backend",
        "llamacpp",
        "--prompt",
        16,
        "--tokens",
        4,
        "--repeat",
        3,
        "--against",
        tiny_gguf("qwen2"),
    ]
    assert run(monkeypatch, "bench", tiny("qwen2"), *shape, "--json") == 0
    body = json.loads(capsys.readouterr().out)
    ours, theirs = body["models"]
    assert ours["file_bytes"] < theirs["file_bytes"]
    assert set(ours["ratio"]) == {"prompt", "decode", "first"}
    assert len(body["records"]) == 10
    assert run(monkeypatch, "bench", tiny("qwen2"), "--type", "q8_0", *shape) == 0
    table = capsys.readouterr().out
    assert "decode, tokens/s" in table
    assert "ratio" in table


def test_the_export_command(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("xllamacpp", reason="pip install 'secateur[llamacpp]'")
    model = tiny("mistral")
    assert run(monkeypatch, "export", model, "-o", tmp_path / "a.gguf", "--type", "Q8_0", "--json") == 0
    output = capsys.readouterr()
    body = json.loads(output.out)
    assert (body["architecture"], body["type"], body["verified"], body["context"]) == (
        "llama",
        "q8_0",
        True,
        16,
    )
    assert "note: llama.cpp has no attention window" in output.err
    assert run(monkeypatch, "export", model, "-o", tmp_path / "b.gguf", "--no-verify") == 0
    assert "was NOT verified" in capsys.readouterr().err
    assert run(monkeypatch, "export", model, "-o", tmp_path / "c.gguf", "--format", "ggfu") == 2
    known = "known: dense, gguf, sparse"
    assert capsys.readouterr().err == f"error: unknown --format 'ggfu' (did you mean gguf?); {known}\n"
