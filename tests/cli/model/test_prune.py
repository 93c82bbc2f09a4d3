"""`secateur prune` as a user meets it: JSON out, one line for every mistake, nothing left behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.command import SMALL, Secateur, json_of
from tests.conftest import Maker

from secateur_runtime.errors import ExitCode


def test_dry_run_writes_nothing(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    assert (
        json_of(
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
    made = json_of(secateur("prune", model, "-o", out, *options, "--json"))
    whole = json_of(secateur("inspect", model, "--json"))["parameters"]
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
    made = json_of(
        secateur("prune", tiny("llama"), "-o", tmp_path / "out", *options, "--repair", "bias", "--json")
    )
    assert (made["repair"], made["output_bias"]) == ("bias", "attn,ffn")
    assert json_of(secateur("verify", tmp_path / "out", "--json"))["verdict"] == "ok"
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
    (_no_tokenizer, "tokenizer"),
    (_truncated, "safetensors"),
    (_damaged_header, "safetensors"),
    (_unknown_family, "not supported because"),
    (_short_text, "tokens"),
    (_empty_text, "holds no text"),
    (_damaged_gguf, "gguf"),
]


OUT_OF_REACH: list[tuple[Callable[[Path], list[object]], str]] = [
    (_width("--target", "params=1%"), "the nearest is params="),
    (_width("--target", "params=60%", "--protect", "first=2"), "the nearest is params="),
    (
        lambda model: ["prune", model, "--method", "depth", "--target", "params=1%", *SMALL],
        "the nearest is params=",
    ),
    (
        lambda model: ["prune", model, "--method", "auto", "--target", "params=1%", *SMALL],
        "the nearest is params=",
    ),
]


@pytest.mark.parametrize(
    ("make", "message", "ends"),
    [*((*row, ExitCode.BAD_INPUT) for row in BAD), *((*row, ExitCode.FAILED) for row in OUT_OF_REACH)],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    secateur: Secateur,
    tiny: Maker,
    tmp_path: Path,
    make: Callable[[Path], list[object]],
    message: str,
    ends: ExitCode,
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny("llama"), model)
    arguments = make(model)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    code, out, err = secateur(*arguments, "-o", tmp_path / "out")
    assert code == ends
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
    first = json_of(secateur(*arguments))
    code, _, err = secateur(*arguments)
    assert (code, "--overwrite" in err) == (2, True)
    assert json_of(secateur(*arguments, "--overwrite"))["plan"] == first["plan"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a tmpfs")
def test_a_full_disk_is_one_line_and_leaves_nothing(tiny: Maker, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(small)], capture_output=True
    ).returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        command = [
            sys.executable,
            "-m",
            "secateur",
            "prune",
            str(tiny("llama")),
            "-o",
            str(small / "out"),
            "--sparsity",
            "0.5",
            "--method",
            "magnitude",
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr == f"error: cannot write {small / 'out'}: No space left on device\n"
        assert not list(small.iterdir())
    finally:
        subprocess.run(["umount", str(small)], check=True)


PRINTS_IMPORTS = """
import atexit, sys
from secateur.cli.main import main
from secateur_runtime.errors import ExitCode
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


OBEYS_PERMISSIONS = """
import ctypes, os, runpy, sys
WRITE_ANYWHERE, DROP, CANNOT_DROP = 1, 24, 77
if os.geteuid() == 0 and "DROPPED" not in os.environ:
    if ctypes.CDLL(None).prctl(DROP, WRITE_ANYWHERE, 0, 0, 0):
        sys.exit(CANNOT_DROP)
    # A right that was dropped is lost when the next program starts.
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {"DROPPED": "1"})
runpy.run_module("secateur", run_name="__main__", alter_sys=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="drops a capability of root as Linux has it")
@pytest.mark.parametrize("existing", [False, True])
def test_no_permission_to_write_is_one_line_and_leaves_nothing(
    tiny: Maker, tmp_path: Path, existing: bool
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    if existing:
        (locked / "out").mkdir()
        (locked / "out" / "config.json").write_text("{}")
    locked.chmod(0o555)
    try:
        options = [
            "prune",
            str(tiny("llama")),
            "-o",
            str(locked / "out"),
            "--sparsity",
            "0.5",
            "--method",
            "magnitude",
            "--overwrite",
        ]
        done = subprocess.run(
            [sys.executable, "-c", OBEYS_PERMISSIONS, *options], capture_output=True, text=True
        )
        if done.returncode == 77:
            pytest.skip("cannot run without root's right to write anywhere")
        assert done.stderr == f"error: cannot write {locked / 'out'}: Permission denied\n"
        assert done.returncode == 2
        assert sorted(path.name for path in locked.rglob("*")) == (["config.json", "out"] if existing else [])
    finally:
        locked.chmod(0o755)
