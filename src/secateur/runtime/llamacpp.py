"""GGUF files in llama.cpp, through xllamacpp."""

from __future__ import annotations

import importlib.util
import json
import math
import urllib.error
import urllib.request
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.runtime import Generated, Memory
from secateur.runtime.process import process_memory
from secateur_runtime.errors import MissingExtraError, SourceError

_ERRORS_ONLY = 1
_ALL = 1 << 20
_SURELY = 1e4
# The server listens on this machine only; a proxy has no business there.
_LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def has_llamacpp() -> bool:
    """Return whether xllamacpp is installed."""
    return importlib.util.find_spec("xllamacpp") is not None


def require_llamacpp(purpose: str, error: type[MissingExtraError] = MissingExtraError) -> None:
    """Raise `error` unless xllamacpp is installed."""
    if not has_llamacpp():
        raise error(f"{purpose} needs llama.cpp: pip install 'secateur[llamacpp]'")


class LlamaCpp:
    """A GGUF file loaded in llama.cpp on the CPU.

    context: most tokens of prompt and answer together; parallel: requests at once, each with so much context.
    exact: keep the KV cache in float32 and attention unfused, so that logits can be compared. Raises
    SourceError if llama.cpp cannot load the file.
    """

    name = "llama.cpp"

    def __init__(
        self, path: str, *, context: int, threads: int = 1, exact: bool = False, parallel: int = 1
    ) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = path
        params.n_ctx = context * parallel
        params.n_parallel = parallel
        params.n_gpu_layers = 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.warmup = False
        params.verbosity = _ERRORS_ONLY
        if exact:
            params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
            params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        try:
            self._server: Any = xllamacpp.Server(params)
        # Its message says nothing; what llama.cpp printed does.
        except RuntimeError:
            raise SourceError(f"llama.cpp cannot load {Path(path).name}") from None
        self._letter = self.tokenize("a", special=False)[-1]

    def logprobs(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Return the log-probabilities (nats) of the token after `tokens`, `[vocab_size]`."""
        # The server tells nothing of a token that begins a character without ending it, so it is made to
        # choose a letter; what it tells are the probabilities before that.
        bias = [[self._letter, _SURELY]]
        # More than there are: the server gives all.
        rows = self._complete(tokens, n_predict=1, n_probs=_ALL, logit_bias=bias)["completion_probabilities"][
            0
        ]["top_logprobs"]
        found = np.full(max(row["id"] for row in rows) + 1, -np.inf)
        for row in rows:
            found[row["id"]] = -math.inf if row["logprob"] is None else row["logprob"]
        # llama.cpp adds up the probabilities in float32, which is off by 1e-4 for a large vocabulary.
        exact: NDArray[np.float32] = (found - np.logaddexp.reduce(found)).astype(np.float32)
        return exact

    def generate(self, prompt: Sequence[int], max_tokens: int) -> Generated:
        """Return `max_tokens` greedy tokens after `prompt`, with llama.cpp's own timings."""
        answer = self._complete(prompt, n_predict=max_tokens, return_tokens=True)
        timings = answer["timings"]
        return Generated(tuple(answer["tokens"]), timings["prompt_ms"] / 1000, timings["predicted_ms"] / 1000)

    def stream(self, prompt: Sequence[int], **options: Any) -> Generator[dict[str, Any], None, None]:
        """Yield what llama.cpp tells after each token, with its own `options`.

        Closing the iterator ends the request.
        """
        body = {"prompt": [int(token) for token in prompt], "stream": True, "return_tokens": True, **options}
        with self._open("completion", body) as response:
            for line in response:
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Return the token ids of plain text; special: with the tokens that llama.cpp adds around it."""
        answer = self._ask("tokenize", {"content": text, "add_special": special, "parse_special": False})
        return [int(token) for token in answer["tokens"]]

    def memory(self) -> Memory:
        """Return the memory of this process; the weights are pages of the file."""
        return process_memory()

    def _complete(self, prompt: Sequence[int], **options: Any) -> dict[str, Any]:
        return self._ask(
            "completion",
            {
                "prompt": [int(token) for token in prompt],
                "temperature": 0,
                "cache_prompt": False,
                "ignore_eos": True,
                **options,
            },
        )

    def _ask(self, what: str, body: dict[str, Any]) -> dict[str, Any]:
        with self._open(what, body) as response:
            answer: dict[str, Any] = json.load(response)
        return answer

    def _open(self, what: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{self._server.listening_address}/{what}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            return _LOCAL.open(request)
        except urllib.error.HTTPError as error:
            raise SourceError(
                f"llama.cpp refuses to run the model: {json.load(error)['error']['message']}"
            ) from None
