"""What a process that serves does not import.

Each of these takes tens of megabytes that a model could have.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.adapt.serving.test_launch import GREEDY, PROMPT, make_ladder
from tests.conftest import Maker
from tests.uneven import save_uneven, widths

from secateur.model.full_model import load_whole
from secateur.model.handle import open_model
from secateur.runtime.torch import TorchBackend

HEAVY = (
    *(
        "torch._dynamo",
        "torch._inductor",
        "torch.distributed.tensor",
        "torch.distributed.fsdp",
        "sympy",
        "scipy",
        "accelerate",
    ),
    *(
        "transformers.activations",
        "transformers.modeling_utils",
        "transformers.generation.utils",
        "transformers.models.llama.configuration_llama",
    ),
)
SERVER = """
import asyncio, json, sys
from pathlib import Path
from secateur.core.process_memory import spare_the_machine
spare_the_machine()
import httpx
from secateur.core.progress import Silent
from secateur.adapt.serving.elastic_backend import Elasticity
from secateur_runtime.server.http.request_guard import RequestGuard
from secateur.adapt.serving.launch import Serving, build

how = json.loads(sys.argv[1])
elasticity = Elasticity(folder=Path(how["folder"]), ladder=Path(how["ladder"]), kind=how["kind"])
serving = Serving(model=how["model"], name="it", backend=how["backend"], elasticity=elasticity)
app = build(serving, RequestGuard(), Silent())

async def asked(path, body):
    over = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=over, base_url="http://127.0.0.1") as client:
        return (await client.post(path, json={"model": "it", **body})).json()["choices"][0]

chat = {"messages": [{"role": "user", "content": "a tree"}], "max_tokens": 2}
asyncio.run(asked("/v1/chat/completions", chat))
found = asyncio.run(asked("/v1/completions", {**how["asked"], "logprobs": 1}))["logprobs"]["token_logprobs"]
print(json.dumps({"imported": [name for name in how["heavy"] if sys.modules.get(name)], "logprobs": found}))
"""


@pytest.mark.parametrize(("backend", "kind"), [("elastic", ""), ("native", "f32")])
def test_a_server_imports_no_modelling_and_answers_as_the_model_does(
    backend: str, kind: str, tiny: Maker, tiny_gguf: Maker, tmp_path: Path
) -> None:
    # Of the folder stock transformers would ask to run its own code.
    model = (
        tiny_gguf("llama")
        if kind
        else save_uneven(tiny("llama"), tmp_path / "uneven", widths([(4, 2, 40), (4, 2, 96), (4, 2, 64)]))
    )
    ladder, _ = make_ladder(model, tmp_path)
    how = {
        "model": str(model),
        "backend": backend,
        "kind": kind,
        "folder": str(tmp_path),
        "ladder": str(ladder),
        "heavy": HEAVY,
        "asked": GREEDY,
    }
    done = subprocess.run(
        [sys.executable, "-c", SERVER, json.dumps(how)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["imported"] == []
    expected = TorchBackend(load_whole(open_model(str(model)))).logprobs(PROMPT)
    assert answer["logprobs"][0] == pytest.approx(float(expected.max()), abs=1e-2)
    # Or else the names above were of nothing.
    assert set(HEAVY) & set(sys.modules)
