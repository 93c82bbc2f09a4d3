"""The native backend against stock transformers, on tiny models of every family that it runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tests.conftest import Maker
from tests.secateur_runtime.kernels.products import BATCH, multiply
from tests.uneven import save_uneven, widths

from secateur.model.families import FAMILIES
from secateur.model.full_model import load_whole
from secateur.model.handle import open_registered
from secateur.model.native_support import runs_natively
from secateur.pipeline.evaluate.evaluate import evaluate
from secateur.pipeline.evaluate.native_model import KINDS, MatrixReader, NativeOptions, run_natively
from secateur.pipeline.export.sparse_folder import export_sparse
from secateur.runtime.native import Native
from secateur.runtime.torch import TorchBackend
from secateur_runtime.errors import UnsupportedModelError, UsageError
from secateur_runtime.kernels.dense_or_sparse import Chooser
from secateur_runtime.kernels.kernel_weight import Weight
from secateur_runtime.kernels.library import kernels
from secateur_runtime.kernels.thread_pool import ThreadPool

RUN = tuple(name for name, family in FAMILIES.items() if runs_natively(family))
TOKENS = [int(token) for token in np.random.default_rng(0).integers(3, 384, size=90)]
UNEVEN = widths([(0, 0, 96), (4, 2, 64), (2, 1, 0), (2, 2, 37)])


def expected(model: str) -> NDArray[np.float32]:
    with torch.inference_mode():
        found: NDArray[np.float32] = (
            load_whole(open_registered(model))(torch.tensor([TOKENS])).logits[0].numpy()
        )
    return found


def test_families() -> None:
    assert set(RUN) >= {"llama", "mistral", "qwen2", "qwen3", "smollm3"}
    assert not {"gemma2", "gemma3_text", "phi3"} & set(RUN)


def found(model: str, how: NativeOptions | None = None) -> NDArray[np.float32]:
    backend = run_natively(open_registered(model), how or NativeOptions(kind="f32", exact=True))
    assert isinstance(backend, Native)
    return np.concatenate(list(backend.logits(TOKENS)))


@pytest.mark.parametrize("family", RUN)
def test_float32_is_exact(tiny: Maker, family: str) -> None:
    model = str(tiny(family))
    np.testing.assert_allclose(found(model), expected(model), atol=5e-5)


@pytest.mark.parametrize("family", RUN)
def test_unequal_widths_and_missing_halves(tiny: Maker, tmp_path: Path, family: str) -> None:
    model = str(save_uneven(tiny(family), tmp_path / "model", UNEVEN))
    np.testing.assert_allclose(found(model), expected(model), atol=5e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind(tiny: Maker, kind: str, isa: str) -> None:
    """Each is the model with the weights that the kind can hold.

    Of a sparse kind no more bytes are read than of its dense one.
    """
    model = open_registered(str(tiny("llama", hidden_size=128)))
    read = MatrixReader(model, kind, chooser())
    whole = load_whole(model)
    for name in model.graph.tensors:
        if name.endswith(".weight") and len(model.graph.tensors[name].shape) == 2:
            whole.get_parameter(name).data = held(read(name))
    with torch.inference_mode():
        wanted = whole(torch.tensor([TOKENS])).logits[0].numpy()
    ours, theirs = (
        torch.from_numpy(each).log_softmax(-1)
        for each in (found(str(tiny("llama", hidden_size=128)), NativeOptions(kind=kind, exact=True)), wanted)
    )
    kl = (theirs.exp() * (theirs - ours)).sum(-1).mean()
    # Inputs keep 16 bits next to integers and where pairs of bfloat16 are multiplied: a thousandth of what
    # bf16 promises.
    assert kl < (1e-9 if kind == "f32" else 1e-7), kl


def test_more_threads_than_cores_are_refused(tiny: Maker) -> None:
    with pytest.raises(UsageError, match=r"^--threads 9999: this machine lets us use"):
        found(str(tiny("llama")), NativeOptions(threads=9999))


def chooser() -> Chooser:
    library = kernels()
    assert library is not None
    return Chooser(library, ThreadPool(library, 1))


@pytest.fixture(autouse=True)
def _without_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which form is faster is another question than what it computes."""
    monkeypatch.setattr(Chooser, "faster", lambda _, packed, dense: Weight(packed))


def held(weight: Weight) -> torch.Tensor:
    """Return what a weight multiplies, by products with the columns of the identity."""
    library = kernels()
    assert library is not None
    eye = torch.eye(weight.columns)
    return torch.cat([multiply(library, weight, part) for part in eye.split(BATCH)]).T.contiguous()


def test_pruned_weights_are_left_out(tiny: Maker, tmp_path: Path) -> None:
    folder = half_pruned(tiny("llama"), tmp_path / "half")
    told = {kind: loaded(folder, kind).about() for kind in ("bf16", "sparse-bf16", "int8", "sparse-int8")}
    assert told["sparse-bf16"].read < 0.75 * told["bf16"].read
    assert {kind for _, _, kind, _ in told["sparse-bf16"].kinds} == {"sparse-bf16", "bf16"}
    assert not told["bf16"].timed
    assert sum(count for *_, count in told["int8"].kinds) == 7 * 3 + 1
    np.testing.assert_allclose(
        found(str(folder), NativeOptions(kind="sparse-bf16")),
        found(str(folder), NativeOptions(kind="bf16")),
        atol=1e-4,
    )
    np.testing.assert_allclose(
        found(str(folder), NativeOptions(kind="sparse-int8")),
        found(str(folder), NativeOptions(kind="int8")),
        atol=1e-4,
    )


def test_a_folder_without_zeros_runs_as_it_is(tiny: Maker, tmp_path: Path) -> None:
    folder = half_pruned(tiny("llama", dtype="bfloat16"), tmp_path / "half")
    export_sparse(str(folder), tmp_path / "sparse", kind="sparse-bf16")
    stored = loaded(tmp_path / "sparse")
    assert {kind for _, _, kind, _ in stored.about().kinds} == {"sparse-bf16", "bf16"}
    np.testing.assert_allclose(
        found(str(tmp_path / "sparse"), NativeOptions()),
        found(str(folder), NativeOptions(kind="bf16")),
        atol=1e-4,
    )


def half_pruned(whole: Path, folder: Path) -> Path:
    """Copy a model without the smaller half of the weights inside its blocks."""
    shutil.copytree(whole, folder)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith("proj.weight"):
            tensors[name] = torch.where(tensor.abs() < tensor.abs().median(), 0.0, tensor)
    save_file(tensors, folder / "model.safetensors")
    return folder


def loaded(model: Path, kind: str = "") -> Native:
    backend = run_natively(open_registered(str(model)), NativeOptions(kind=kind))
    assert isinstance(backend, Native)
    return backend


def test_the_steps_of_a_backend(tiny: Maker) -> None:
    backend = loaded(tiny("qwen3"))
    prompt = TOKENS[:20]
    answer = backend.generate(prompt, 8).tokens
    cache = backend.open()
    row = backend.prefill(prompt, cache)
    for token in answer:
        assert int(row.argmax()) == token
        row = backend.decode([token], [cache])[0]
    np.testing.assert_allclose(np.exp(backend.logprobs(prompt)).sum(), 1, rtol=1e-5)
    assert backend.memory().resident > 1 << 20


def test_what_cannot_run(tiny: Maker) -> None:
    with pytest.raises(
        UnsupportedModelError,
        match=r"the native backend runs llama, .*smollm3.*, and .* is gemma2: use --backend torch",
    ):
        loaded(tiny("gemma2"))
    with pytest.raises(
        UsageError,
        match=r"--type sparse-int9 is not one of the native backend \(did you mean sparse-int8\?\)",
    ):
        loaded(tiny("llama"), "sparse-int9")
    with pytest.raises(UnsupportedModelError, match="no activation 'gelu'"):
        loaded(tiny("llama", hidden_act="gelu"))
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    with pytest.raises(UnsupportedModelError, match="no rotary embedding of the kind 'dynamic'"):
        loaded(tiny("llama", rope_parameters=rope))


def test_scaled_rotary_embeddings(tiny: Maker) -> None:
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    model = str(tiny("llama", rope_parameters=rope))
    np.testing.assert_allclose(found(model), expected(model), atol=5e-5)


def test_without_kernels_torch_runs(tiny: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("secateur.pipeline.evaluate.native_model", "secateur_runtime.kernels.library"):
        monkeypatch.setattr(f"{module}.kernels", lambda: None)
    backend = run_natively(open_registered(str(tiny("llama"))), NativeOptions(kind="f32"))
    assert isinstance(backend, TorchBackend)
    with pytest.raises(UsageError, match="no kernels here"):
        evaluate(str(tiny("llama")), text="builtin", window=50, count=1, native=NativeOptions())
