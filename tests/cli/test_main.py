"""The command as a user meets it: JSON out, one line for every mistake, nothing left behind."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Maker

from secateur.model.handle import open_model

SMALL = ["--samples", "4", "--calib-window", "64"]


Secateur = Callable[..., tuple[int, str, str]]


def _json(result: tuple[int, str, str]) -> dict[str, Any]:
    code, out, err = result
    assert code == 0, err
    body: dict[str, Any] = json.loads(out)
    return body


def test_prune_eval_verify_inspect(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    model, out = tiny("llama"), tmp_path / "out"
    pruned = _json(
        secateur("prune", model, "-o", out, "--method", "wanda", "--sparsity", "0.5", *SMALL, "--json")
    )
    assert (pruned["sparsity"], pruned["criterion"], pruned["target"]) == (0.5, "wanda", "0.5")
    quality = _json(secateur("eval", out, "--window", 64, "-n", 2, "--reference", model, "--json"))
    assert quality["kl"] > 0
    assert quality["tokens"] == 2 * 63
    assert _json(secateur("verify", out, "--reference", model, "--json"))["verdict"] == "ok"
    assert _json(secateur("inspect", out, "--json"))["sparsity_of_prunable"] == 0.5


def test_tables_for_people(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    model = tiny("phi3")
    code, out, _ = secateur("inspect", model, "--tensors")
    assert code == 0
    assert "qkv_proj" in out
    code, out, _ = secateur(
        "plan", model, "-o", tmp_path / "plan.json", "--method", "magnitude", "--pattern", "2:4", "--explain"
    )
    assert code == 0
    assert "gate_up_proj" in out
    assert "2:4" in out


def test_plan_then_apply_equals_prune(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    model, options = tiny("llama"), ["--method", "sparsegpt", "--pattern", "2:4", *SMALL]
    _json(secateur("prune", model, "-o", tmp_path / "a", *options, "--json"))
    _json(secateur("plan", model, "-o", tmp_path / "plan.json", *options, "--json"))
    _json(secateur("apply", model, "--plan", tmp_path / "plan.json", "-o", tmp_path / "b", "--json"))
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_dry_run_writes_nothing(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    assert (
        _json(
            secateur(
                "prune",
                tiny("llama"),
                "-o",
                tmp_path / "out",
                "--sparsity",
                "0.5",
                *SMALL,
                "--dry-run",
                "--json",
            )
        )["pruned_tensors"]
        == 21
    )
    assert not list(tmp_path.iterdir())


def test_quantize_verify_export(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors", reason="pip install 'secateur[quantize]'")
    made = _json(
        secateur(
            "quantize", tiny("llama"), "-o", tmp_path / "out", "--bits", 3, "--asymmetric", *SMALL, "--json"
        )
    )
    assert (made["grids"], made["bits_per_weight"], made["method"]) == ({"int3a-g32": 92160}, 3.5938, "gptq")
    assert _json(secateur("verify", tmp_path / "out", "--json"))["verdict"] == "ok"
    done = _json(secateur("export", tmp_path / "out", "-o", tmp_path / "out.gguf", "--no-verify", "--json"))
    assert done["type"] == "packed"
    code, _, error = secateur("quantize", tiny("llama"), "-o", tmp_path / "no", "--method", "gtpq")
    assert (code, error) == (
        2,
        "error: unknown quantization method 'gtpq' (did you mean gptq?); known: gptq, imatrix, rtn\n",
    )


def test_a_budget_is_met_and_explained(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    model, out = tiny("llama"), tmp_path / "out"
    options = [
        "--method",
        "width",
        "--units",
        "ffn,kv",
        "--target",
        "params=85%",
        "--target",
        "size=500kB",
        *SMALL,
    ]
    made = _json(secateur("prune", model, "-o", out, *options, "--json"))
    whole = _json(secateur("inspect", model, "--json"))["parameters"]
    assert made["parameters"] <= min(0.85 * whole, 125_000)
    assert made["target"] == "params=85%,size=500kB"
    assert made["loads"] == "in stock transformers"
    code, text, _ = secateur(
        "plan", model, "-o", tmp_path / "plan.json", *options, "--protect", "first=1", "--explain"
    )
    assert code == 0
    assert "all ffn units: keep" in text
    assert "parameters: " in text
    assert "through the code beside it" in text


def test_repairs_of_units(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    options = ["--method", "width", "--units", "ffn,kv", "--ratio", "0.4", "--align", "8", *SMALL]
    made = _json(
        secateur("prune", tiny("llama"), "-o", tmp_path / "out", *options, "--repair", "bias", "--json")
    )
    assert (made["repair"], made["output_bias"]) == ("bias", "attn,ffn")
    assert _json(secateur("verify", tmp_path / "out", "--json"))["verdict"] == "ok"
    code, text, _ = secateur(
        "plan", tiny("llama"), "-o", tmp_path / "plan.json", *options, "--repair", "bias", "--explain"
    )
    assert code == 0
    assert f"parameters: {made['parameters']:,} of" in text
    for family, repair, message in (
        (
            "qwen3",
            "bias",
            "adds a bias to mlp.down_proj, which a stock qwen3 config cannot hold: use --repair lsq",
        ),
        (
            "phi3",
            "bias",
            "adds a bias to self_attn.o_proj, which a stock phi3 config cannot hold: use --repair lsq",
        ),
        (
            "llama",
            "dsnot",
            "--repair 'dsnot' cannot repair a cut of units; these can: affine, bias, lsq, none",
        ),
    ):
        code, out, error = secateur(
            "prune", tiny(family), "-o", tmp_path / "no", *options, "--repair", repair
        )
        assert (code, out) == (2, "")
        assert message in error
        assert error.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"out", "plan.json"}


def test_help_names_every_criterion_and_spread_of_units(secateur: Secateur) -> None:
    from secateur.allocate.units import SPREADS
    from secateur.criteria.units import UNIT_CRITERIA
    from secateur.transform.unit_repair import UNIT_REPAIRS

    code, text, _ = secateur("prune", "--help")
    assert code == 0
    assert [
        name for name in (*UNIT_CRITERIA, *SPREADS, *UNIT_REPAIRS) if name not in "".join(text.split())
    ] == []


def test_a_type_that_bytes_were_reckoned_with_is_the_type_that_is_stored(
    secateur: Secateur, tiny: Maker, tmp_path: Path
) -> None:
    options = ["--method", "width", "--target", "size=240kB", "--dtype", "bfloat16", *SMALL]
    _json(secateur("plan", tiny("llama"), "-o", tmp_path / "plan.json", *options, "--json"))
    applied = _json(
        secateur("apply", tiny("llama"), "--plan", tmp_path / "plan.json", "-o", tmp_path / "a", "--json")
    )
    pruned = _json(secateur("prune", tiny("llama"), "-o", tmp_path / "b", *options, "--json"))
    assert applied["bytes"] == pruned["bytes"]
    assert 2 * applied["parameters"] <= 240_000


def _no_tokenizer(model: Path) -> list[object]:
    for file in model.glob("tokenizer*"):
        file.unlink()
    return ["prune", model, "--sparsity", "0.5", "--method", "wanda"]


def _truncated(model: Path) -> list[object]:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    return ["prune", model, "--sparsity", "0.5"]


def _damaged_header(model: Path) -> list[object]:
    weights = model / "model.safetensors"
    weights.write_bytes(b"\xff" * 8 + weights.read_bytes()[8:])
    return ["prune", model, "--sparsity", "0.5"]


def _unknown_family(model: Path) -> list[object]:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    return ["prune", model, "--sparsity", "0.5"]


def _short_text(model: Path) -> list[object]:
    (model / "short.txt").write_text("too short")
    return ["prune", model, "--sparsity", "0.5", "--method", "wanda", "--calib", model / "short.txt"]


def _empty_text(model: Path) -> list[object]:
    (model / "empty.txt").write_text("")
    return ["prune", model, "--sparsity", "0.5", "--method", "wanda", "--calib", model / "empty.txt"]


def _damaged_gguf(model: Path) -> list[object]:
    (model / "model.gguf").write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 32)
    return ["prune", model / "model.gguf", "--sparsity", "0.5"]


def _width(*options: str) -> Callable[[Path], list[object]]:
    return lambda model: ["prune", model, "--method", "width", *SMALL, *options]


BAD: list[tuple[Callable[[Path], list[object]], str]] = [
    (lambda model: ["prune", model / "nothing", "--sparsity", "0.5"], "does not exist"),
    (lambda model: ["prune", "smollm2-136m", "--sparsity", "0.5"], "did you mean smollm2-135m"),
    (lambda model: ["prune", model, "--sparsity", "1.5"], "outside"),
    (lambda model: ["prune", model, "--sparsity", "nan"], "outside"),
    (lambda model: ["prune", model, "--sparsity", "half"], "neither a ratio"),
    (lambda model: ["prune", model, "--pattern", "4:2"], "less than M"),
    (lambda model: ["prune", model, "--pattern", "3:7"], "not a multiple of 7"),
    (lambda model: ["prune", model], "either --sparsity"),
    (lambda model: ["prune", model, "--sparsity", "0.5", "--pattern", "2:4"], "either --sparsity"),
    (lambda model: ["prune", model, "--sparsity", "0.5", "--method", "wnada"], "did you mean wanda"),
    (lambda model: ["prune", model, "--sparsity", "0.5", "--dtype", "bfloat61"], "did you mean bfloat16"),
    (lambda model: ["prune", model, "--sparsity", "0.5", "--compute", "int8"], "unknown --compute"),
    (
        lambda model: ["prune", model, "--sparsity", "0.5", "--calib", "none.txt", "--method", "wanda"],
        "none.txt",
    ),
    (_width("--ratio", "0.2", "--target", "params=80%"), "either --ratio"),
    (_width(), "either --ratio"),
    (_width("--target", "parms=80%"), "did you mean params"),
    (_width("--target", "params=1%"), "the nearest is params="),
    (_width("--target", "params=60%", "--protect", "first=2"), "the nearest is params="),
    (_width("--target", "ram=1GB"), "needs a context"),
    (_width("--ratio", "0.2", "--align", "256"), "no multiple of --align 256"),
    (_width("--ratio", "0.2", "--units", "ffn,neurons"), "unknown units 'neurons'"),
    (_width("--ratio", "0.2", "--units", "kv", "--keep-heads", "3"), "has only 2"),
    (_width("--ratio", "0.2", "--criterion", "ppm", "--units", "kv"), "cannot score kv"),
    (_width("--ratio", "0.2", "--uniform", "--allocation", "knapsack"), "contradict"),
    (_width("--ratio", "0.2", "--layers", "1-7"), "has 0-2"),
    (_width("--sparsity", "0.5"), "--sparsity belongs"),
    (_width("--ratio", "0.2", "--drop-layers", "1"), "--drop-layers belongs"),
    (
        lambda model: ["prune", model, "--sparsity", "0.5", "--target", "params=80%"],
        "--sparsity belongs to pruning of weights",
    ),
    (lambda model: ["prune", model, "--method", "depth", "--ratio", "0.3", "--uniform"], "--uniform belongs"),
    (lambda model: ["prune", model, "--method", "depth", *SMALL], "one of --drop-layers"),
    (
        lambda model: ["prune", model, "--method", "depth", "--drop-layers", "2", *SMALL],
        "at most 1 blocks' worth",
    ),
    (
        lambda model: ["prune", model, "--method", "depth", "--target", "params=1%", *SMALL],
        "the nearest is params=",
    ),
    (_no_tokenizer, "tokenizer"),
    (_truncated, "safetensors"),
    (_damaged_header, "safetensors"),
    (_unknown_family, "not supported because"),
    (_short_text, "tokens"),
    (_empty_text, "holds no text"),
    (_damaged_gguf, "gguf"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_a_mistake_is_one_line_and_leaves_nothing(
    secateur: Secateur, tiny: Maker, tmp_path: Path, make: Callable[[Path], list[object]], message: str
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny("llama"), model)
    arguments = make(model)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    code, out, err = secateur(*arguments, "-o", tmp_path / "out")
    assert code == 2
    assert not out
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1, err
    assert message in err
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_an_existing_output_is_kept(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    arguments = [
        "prune",
        tiny("llama"),
        "-o",
        tmp_path / "out",
        "--sparsity",
        "0.5",
        "--method",
        "magnitude",
        "--json",
    ]
    first = _json(secateur(*arguments))
    code, _, err = secateur(*arguments)
    assert (code, "--overwrite" in err) == (2, True)
    assert _json(secateur(*arguments, "--overwrite"))["plan"] == first["plan"]


def test_a_wrong_plan_is_one_line(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    _json(
        secateur(
            "plan",
            tiny("qwen2"),
            "-o",
            tmp_path / "plan.json",
            "--method",
            "magnitude",
            "--sparsity",
            "0.5",
            "--json",
        )
    )
    uneven = json.dumps(
        {"version": 1, "model": open_model(str(tiny("llama"))).digest, "keep": {"0.head": [0, 1, 2]}}
    )
    for text, message in (
        (None, "plan was made for"),
        ("{", "not JSON"),
        ('{"version": 1, "model": "", "x": 1}', "unknown key"),
        (uneven, "unevenly"),
    ):
        if text is not None:
            (tmp_path / "plan.json").write_text(text)
        code, _, err = secateur(
            "apply", tiny("llama"), "--plan", tmp_path / "plan.json", "-o", tmp_path / "out"
        )
        assert (code, len(err.splitlines())) == (2, 1)
        assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


@pytest.mark.parametrize("damage", ["bytes", "zeros", "missing"])
def test_verify_finds_what_was_changed_after_writing(
    secateur: Secateur, tiny: Maker, tmp_path: Path, damage: str
) -> None:
    from safetensors.torch import load_file, save_file

    out = tmp_path / "out"
    _json(secateur("prune", tiny("llama"), "-o", out, "--sparsity", "0.5", "--method", "magnitude", "--json"))
    shard = out / "model-00002-of-00004.safetensors"
    if damage == "missing":
        (out / "secateur.json").write_text("{}")
    if damage == "bytes":
        shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    if damage == "zeros":
        save_file(
            {name: tensor + 1 for name, tensor in load_file(shard).items()}, shard, metadata={"format": "pt"}
        )
        (out / "secateur.json").unlink()
    code, _, err = secateur("verify", out)
    assert (code, len(err.splitlines())) == (2 if damage == "missing" else 3, 1)


def test_max_kl_is_a_gate(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    _json(
        secateur(
            "prune",
            tiny("llama"),
            "-o",
            tmp_path / "out",
            "--sparsity",
            "0.9",
            "--method",
            "random",
            "--json",
        )
    )
    code, _, err = secateur("verify", tmp_path / "out", "--reference", tiny("llama"), "--max-kl", "1e-9")
    assert (code, len(err.splitlines())) == (3, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a tmpfs")
def test_a_full_disk_is_one_line_and_leaves_nothing(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(small)], capture_output=True
    ).returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        code, _, err = secateur(
            "prune", tiny("llama"), "-o", small / "out", "--sparsity", "0.5", "--method", "magnitude"
        )
        assert code == 2
        assert err.splitlines()[-1] == f"error: cannot write {small / 'out'}: No space left on device"
        assert not list(small.iterdir())
    finally:
        subprocess.run(["umount", str(small)], check=True)


PRINTS_IMPORTS = """
import atexit, sys
from secateur.cli.main import main
atexit.register(lambda: print("\\n", *(name for name, module in sys.modules.items() if module)))
main()
"""


def test_the_command_imports_nothing_for_training(tiny: Maker, tmp_path: Path) -> None:
    options = [
        "prune",
        str(tiny("llama")),
        "-o",
        str(tmp_path / "out"),
        "--method",
        "magnitude",
        "--sparsity",
        "0.5",
    ]
    done = subprocess.run(
        [sys.executable, "-c", PRINTS_IMPORTS, *options], check=True, capture_output=True, text=True
    )
    imported = done.stdout.splitlines()[-1].split()
    assert "transformers.modeling_utils" in imported
    assert not {"scipy", "accelerate"} & set(imported)


@contextmanager
def _obeying_permissions() -> Iterator[None]:
    """Inside, this thread has no right of root's to write anywhere."""
    write_anywhere, version, library = 1, 0x20080522, ctypes.CDLL(None)
    header, rights = (ctypes.c_uint32 * 2)(version, 0), (ctypes.c_uint32 * 6)()
    assert library.capget(header, rights) == 0
    had = rights[0]
    rights[0] = had & ~(1 << write_anywhere)
    if library.capset(header, rights):
        pytest.skip("cannot run without root's right to write anywhere")
    try:
        yield
    finally:
        rights[0] = had
        assert library.capset(header, rights) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="drops a capability of root as Linux has it")
@pytest.mark.parametrize("existing", [False, True])
def test_no_permission_to_write_is_one_line_and_leaves_nothing(
    secateur: Secateur, tiny: Maker, tmp_path: Path, existing: bool
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    if existing:
        (locked / "out").mkdir()
        (locked / "out" / "config.json").write_text("{}")
    locked.chmod(0o555)
    try:
        model = tiny("llama")
        with _obeying_permissions():
            code, _, err = secateur(
                "prune",
                model,
                "-o",
                locked / "out",
                "--sparsity",
                "0.5",
                "--method",
                "magnitude",
                "--overwrite",
            )
        assert err == f"error: cannot write {locked / 'out'}: Permission denied\n"
        assert code == 2
        assert sorted(path.name for path in locked.rglob("*")) == (["config.json", "out"] if existing else [])
    finally:
        locked.chmod(0o755)


def test_recover(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    teacher, student, out = tiny("llama"), tmp_path / "student", tmp_path / "out"
    _json(
        secateur("prune", teacher, "-o", student, "--method", "wanda", "--sparsity", "0.5", *SMALL, "--json")
    )
    options = ["--teacher", teacher, "--samples", "16", "--calib-window", "64"]
    made = _json(secateur("recover", student, "-o", out, *options, "--steps", "20", "--json"))
    assert made["kl_after"] < made["kl_before"]
    assert _json(secateur("verify", out, "--json"))["verdict"] == "ok"
    code, printed, error = secateur("recover", student, "-o", tmp_path / "no", *options, "--method", "locl")
    assert (code, printed) == (2, "")
    assert "unknown --method 'locl' (did you mean local?)" in error


def test_recover_refuses_options_of_another_method(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    for options, message in (
        (["--rank", "4"], "--rank belongs to --method lora, not to local"),
        (["--method", "lora", "--sparsity", "0.5"], "--sparsity belongs to --method distill, not to lora"),
        (["--method", "distill", "--stages", "3"], "--stages needs --ratio"),
        (["--method", "distill", "--criterion", "wanda"], "--criterion needs --sparsity"),
        (["--method", "distill", "--loss", "backward"], "unknown --loss 'backward'"),
    ):
        code, printed, error = secateur(
            "recover", tiny("llama"), "-o", tmp_path / "no", "--teacher", tiny("llama"), *options
        )
        assert (code, printed) == (2, "")
        assert message in error
        assert error.count("\n") == 1
