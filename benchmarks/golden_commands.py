"""The commands that `golden.py` runs, the models they run on, and the differences that are meant.

A command is a line of `secateur` with places to fill in:

- `{llama}`, `{deep}` and so on: a model of `TINY` or `GGUF`.
- `{out}`: where the command writes. `{of[NAME]}`: where another wrote. `{said[NAME]}`: what it printed.
- `{base[NAME]}`: where another wrote in the base, for files whose timings would show.
- `{text}`, `{device}`, `{recipe}`, `{mirror}`: a text, a device's profile, a recipe, and data of tasks.
- `{calib}`: the options of a small calibration on that text. `{real}`: the same for the real model.

All paths are relative, so both checkouts get the same words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

CALIBRATION = "--calib ../inputs/text.txt --samples 6 --calib-window 32"
REAL_CALIBRATION = "--calib builtin --samples 4 --calib-window 64"


@dataclass(frozen=True, slots=True)
class Command:
    """One row: a name and a line of `secateur`.

    printed: what it prints is text; otherwise `--json` is added and the object is parsed.
    ways: how files are compared, as pairs of a pattern and a word: `json` (what it says, timings aside),
    `words` (text without its numbers, which are timings), `tensors` (safetensors without a fixed order of
    what its header says).
    moving: keys of its JSON that differ between two runs, beside those that always do.
    """

    name: str
    line: str
    printed: bool = False
    ways: tuple[tuple[str, str], ...] = ()
    moving: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Intended:
    """A difference that is meant.

    command, file: patterns such as `width-*` and `README.md` (`*`: all files, what is printed is `stdout`).
    reason: why it is right.
    change: what the base wrote in, what the new checkout must write out; without it any difference will do.
    argv: the words of the base in, those that the new checkout understands out.
    """

    command: str
    file: str
    reason: str
    change: Callable[[Any], Any] | None = None
    argv: Callable[[list[str]], list[str]] | None = None


_REWORDED = (
    (
        "zeros of the shape of the hidden states, with the missing attention weights where attention stood.",
        "zeros of the shape of the hidden states; for attention, a pair with None as its weights.",
    ),
    (
        "that a config class may insist on when it is made: as wide as all query heads together.",
        "that a config class may require: the width of all query heads together.",
    ),
    ("refuse to read one that differs by layer.", "refuse to read one\n        # that differs by layer."),
    ("a zero width mean absent.", "a zero width\n    mean absent."),
    ("names of the norms that belong to each half,", "names of the norms that belong to each sub-block,"),
    (
        'own.num_attention_heads, own.num_key_value_heads, own.head_dim = row["n_heads"],'
        ' row["n_kv_heads"], row["head_dim"]',
        'own.num_attention_heads = row["n_heads"]\n        own.num_key_value_heads = row["n_kv_heads"]\n'
        '        own.head_dim = row["head_dim"]',
    ),
)
"""Comments and long lines in the file that models bring which stock transformers cannot hold."""


def reworded(content: bytes) -> bytes:
    """Return the modelling file that the base wrote as it is written today."""
    for before, after in _REWORDED:
        content = content.replace(before.encode(), after.encode())
    return content


INTENDED: tuple[Intended, ...] = (
    Intended("*", "modeling_*.py", "its comments are reworded and its long lines broken", reworded),
    Intended("help-*", "stdout", "reworded; the options of each verb are held by tests/cli/options.txt"),
    Intended("adapt-simulate", "*.html", "the style in the page is laid out in more lines"),
    Intended("adapt-simulate", "stdout", "'estimated' instead of 'reckoned' in a note"),
    Intended("run", "stages/*.json", "digests of files, of plans and of cards that name a plan's digest"),
    Intended("report", "*.html", "the style and the script in the page are laid out in more lines"),
)

TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "deep": ("llama", {"num_hidden_layers": 6}),
    "half": ("llama", {"dtype": "bfloat16", "tie_word_embeddings": True}),
    "biased": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "mistral": ("mistral", {}),
    "smollm3": ("smollm3", {}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "gemma2": ("gemma2", {}),
    "gemma3": ("gemma3_text", {}),
    "phi3": ("phi3", {}),
}
"""Name -> family and what differs from the tiny default of the tests."""

GGUF: dict[str, tuple[str, str]] = {"llama_gguf": ("llama", "F32"), "qwen3_gguf": ("qwen3", "Q8_0")}
"""Name -> tiny model and type of its matrices."""

DEVICE = """
name = "a machine made up"
kind = "laptop"
processor = "cpu"
sparse_tensor_cores = false
moving_memory = true
[isa]
names = ["avx2"]
source = "made up"
confirmed = false
[figures]
cores = {value = 4.0, source = "made up", confirmed = false}
memory = {value = 8.0e9, source = "made up", confirmed = false}
stream = {value = 2.0e10, source = "made up", confirmed = false}
matrix = {value = 1.0e11, source = "made up", confirmed = false}
"""

RECIPE = """
model: ../inputs/llama
calibration: {text: ../inputs/text.txt, samples: 6, window: 32}
stages:
  - prune: {method: width, ratio: 0.3, align: 32}
  - recover: {method: distill, steps: 4, batch: 64, micro: 1, calibration: {samples: 8}}
  - quantize: {bits: 4, group: 32}
  - recover: {method: scales, steps: 4, batch: 64, micro: 1, calibration: {samples: 8}}
  - eval: {text: ../inputs/text.txt, window: 32, count: 4}
  - export
  - gate: {perplexity_ratio: 9.0, size: 85MB}
"""


def _prune(name: str, line: str) -> Command:
    return Command(name, f"prune {line} -o {{out}} {{calib}}")


def _width(name: str, line: str) -> Command:
    return _prune(name, f"{line} --method width --align 8")


def _recover(name: str, line: str) -> Command:
    steps = "--steps 4 --batch 64 --samples 8 --calib {text} --calib-window 32"
    return Command(name, f"recover {line} -o {{out}} {steps}", moving=("tokens_per_second",))


def _quantize(name: str, line: str) -> Command:
    return Command(name, f"quantize {line} -o {{out}} {{calib}}")


def _gguf(name: str, line: str) -> Command:
    return Command(name, f"export {line} -o {{out}}.gguf")


def _eval(name: str, line: str, *, printed: bool = False) -> Command:
    return Command(name, f"eval {line} --text {{text}} --window 32 -n 4", printed=printed)


WEIGHTS = (
    _prune("weights-magnitude", "{llama} --method magnitude --sparsity 0.4"),
    _prune("weights-wanda", "{llama} --method wanda --sparsity 50%"),
    _prune("weights-ria", "{qwen2} --method ria --sparsity 0.5"),
    _prune("weights-random", "{llama} --method random --sparsity 0.5 --seed 3"),
    _prune("weights-sparsegpt", "{llama} --method sparsegpt --sparsity 0.5"),
    _prune("weights-alps", "{qwen3} --method alps --sparsity 0.6"),
    _prune("weights-auto", "{half} --sparsity 0.5"),
    _prune("weights-obs", "{llama} --method wanda --criterion obs --sparsity 0.5"),
    _prune("weights-dsnot", "{smollm3} --method wanda --repair dsnot --sparsity 0.5"),
    _prune("weights-lsq", "{mistral} --method wanda --repair lsq --sparsity 0.5"),
    _prune("weights-admm", "{llama} --method wanda --repair admm --pattern 4:8"),
    _prune("weights-ria-obs", "{llama} --method ria --repair obs --pattern 1:4"),
    _prune("weights-owl", "{deep} --method wanda --allocation owl --sparsity 0.6"),
    _prune("weights-error", "{deep} --method sparsegpt --allocation error --sparsity 0.6"),
    _prune("weights-global", "{gemma2} --method wanda --allocation global --sparsity 0.5"),
    _prune("weights-2of4", "{gemma3} --method sparsegpt --pattern 2:4"),
    _prune(
        "weights-protect",
        "{phi3} --sparsity 0.5 --scope tensor --protect first=1 --protect *.down_proj.weight",
    ),
    _prune("weights-half", "{llama} --sparsity 0.5 --compute bfloat16 --dtype bfloat16 --memory 0"),
    _prune("weights-gguf", "{llama_gguf} --method wanda --sparsity 0.5"),
    _prune("weights-sparse", "{llama} --method sparsegpt --sparsity 0.7 --export sparse-int8"),
    Command(
        "weights-self", "prune {llama} -o {out} --sparsity 0.5 --calib self --samples 2 --calib-window 16"
    ),
    _prune("rotate-learned", "{llama} --method wanda --sparsity 0.5 --rotate learned"),
    _prune("rotate-heads", "{gemma2} --method wanda --sparsity 0.5 --rotate heads"),
    _width("rotate-pca", "{smollm3} --units hidden --ratio 0.2 --rotate pca"),
)

WIDTH = (
    _width("width-obs", "{llama} --ratio 0.25"),
    _width("width-contribution", "{llama} --ratio 0.25 --criterion contribution --allocation knapsack"),
    _width("width-flap", "{biased} --ratio 0.25 --criterion flap --repair bias --allocation zscore"),
    _width("width-magnitude", "{qwen2} --ratio 0.25 --criterion magnitude --repair none"),
    _width("width-minitron", "{llama} --ratio 0.2 --criterion minitron --units hidden"),
    _width("width-ppm", "{mistral} --ratio 0.25 --criterion ppm"),
    _width("width-random", "{llama} --ratio 0.25 --criterion random --seed 5"),
    _width("width-slimllm", "{llama} --ratio 0.25 --criterion slimllm --repair affine --allocation slimllm"),
    _width("width-taylor", "{qwen3} --ratio 0.25 --criterion taylor --units ffn,kv"),
    _width("width-wanda-sp", "{phi3} --ratio 0.25 --criterion wanda-sp"),
    _width("width-wanda", "{gemma3} --ratio 0.25 --criterion wanda"),
    _width("width-sensitivity", "{llama} --ratio 0.3 --allocation sensitivity --units ffn,kv"),
    _width("width-adapt", "{deep} --ratio 0.25 --allocation adapt"),
    _width("width-evolve", "{llama} --ratio 0.25 --allocation evolve"),
    _width("width-2ssp", "{deep} --ratio 0.3 --allocation 2ssp"),
    _width("width-head", "{llama} --ratio 0.5 --units head --criterion contribution"),
    _width("width-hidden", "{qwen2} --ratio 0.2 --units hidden --criterion magnitude"),
    _width("width-uniform", "{llama} --target params=90% --uniform"),
    _width("width-protect", "{deep} --target ratio=0.15 --protect last=1 --layers 1-5"),
    _width("width-gguf", "{qwen3_gguf} --ratio 0.5 --units kv --keep-heads 1"),
)

DEPTH = (
    _prune("depth-influence", "{deep} --method depth --drop-layers 2"),
    _prune("depth-kl", "{deep} --method depth --ratio 0.3 --criterion kl --sub-blocks"),
    _prune("depth-loss", "{smollm3} --method depth --drop-layers 1 --criterion loss"),
    _prune("depth-angular", "{deep} --method depth --drop-layers 2 --criterion angular --repair none"),
    _prune("depth-laco", "{deep} --method depth --drop-layers 2 --criterion laco"),
    _prune(
        "depth-protect",
        "{deep} --method depth --target params=85% --sub-blocks --protect 3.attn --layers 1-4",
    ),
    _prune("depth-gemma", "{gemma3} --method depth --drop-layers 1"),
    _prune("auto-target", "{deep} --target ratio=0.25 --align 8"),
    _prune("auto-uniform", "{deep} --target params=80% --align 8 --uniform --units ffn,kv"),
    Command("vocab-ratio", "prune {llama} -o {out} --method vocab --ratio 0.2 --align 8 --calib {text}"),
    Command("vocab-target", "prune {smollm3} -o {out} --method vocab --target params=97% --calib {text}"),
)

QUANTIZE = (
    _quantize("quantize-gptq", "{llama} --bits 4"),
    _quantize("quantize-asymmetric", "{qwen2} --bits 3 --asymmetric"),
    _quantize("quantize-rtn", "{llama} --bits 8 --method rtn"),
    _quantize("quantize-imatrix", "{qwen3} --bits 5 --method imatrix --protect last=1"),
    _quantize("quantize-target", "{deep} --target size=60%"),
    _quantize("quantize-zeros", "{llama} --bits 4 --sparsity 2:4 --prune alps"),
    _quantize("quantize-pruned", "{of[weights-wanda]} --bits 4"),
)

_WHOLE = "{of[weights-wanda]} --teacher {llama} --micro 1"
_DISTILL = f"{_WHOLE} --method distill"
RECOVER = (
    _recover("recover-local", "{of[weights-wanda]} --teacher {llama}"),
    _recover("recover-distill", _DISTILL),
    _recover("recover-both", f"{_DISTILL} --loss both --states 0.5 --temperature 2 --top 16"),
    _recover("recover-reverse", f"{_DISTILL} --loss reverse --schedule wsd --checkpointing"),
    _recover("recover-lora", f"{_WHOLE} --method lora --rank 4"),
    _recover("recover-bias", f"{_WHOLE} --method bias"),
    _recover("recover-scales", "{of[quantize-gptq]} --teacher {llama} --method scales --micro 1"),
    _recover("recover-gradual", "{llama} --teacher {llama} --method distill --sparsity 0.5 --criterion ria"),
    _recover("recover-stages", "{deep} --teacher {deep} --method distill --ratio 0.34 --stages 2"),
)

EXPORT = (
    _gguf("gguf-f32", "{llama} --type f32"),
    _gguf("gguf-f16", "{of[width-obs]} --type f16"),
    _gguf("gguf-bf16", "{qwen3} --type bf16"),
    _gguf("gguf-q8_0", "{gemma2} --type q8_0"),
    _gguf("gguf-q5_1", "{smollm3} --type q5_1"),
    _gguf("gguf-q5_0", "{phi3} --type q5_0"),
    _gguf("gguf-q4_1", "{mistral} --type q4_1"),
    _gguf("gguf-q4_0", "{gemma3} --type q4_0"),
    _gguf("gguf-unequal", "{of[width-sensitivity]} --type f16"),
    _gguf("gguf-vocab", "{of[vocab-ratio]} --type q8_0"),
    _gguf("gguf-codes", "{of[quantize-gptq]}"),
    _gguf("gguf-asymmetric", "{of[quantize-asymmetric]}"),
    Command("sparse-bf16", "export {of[weights-wanda]} -o {out} --type sparse-bf16"),
    Command("sparse-int8", "export {of[weights-sparsegpt]} -o {out} --type sparse-int8"),
    Command("sparse-int4", "export {of[weights-ria]} -o {out} --type sparse-int4"),
    Command("sparse-codes", "export {of[quantize-pruned]} -o {out} --type sparse-int4"),
    Command("sparse-dense", "export {of[sparse-int8]} -o {out} --type dense"),
)

PLANS = (
    Command("plan-weights", "plan {llama} -o {out}.json --method sparsegpt --pattern 2:4 {calib}"),
    Command("plan-width", "plan {deep} -o {out}.json --method width --ratio 0.3 --align 8 {calib}"),
    Command(
        "plan-explain", "plan {deep} -o {out}.json --method depth --ratio 0.3 --explain {calib}", printed=True
    ),
    Command("apply-weights", "apply {llama} --plan {of[plan-weights]}.json -o {out}"),
    Command("apply-width", "apply {deep} --plan {of[plan-width]}.json -o {out} --dtype bfloat16"),
    _prune("prune-dry", "{llama} --method wanda --sparsity 0.5 --dry-run"),
    Command("run", "run {recipe} -o {out}", ways=(("report.json", "json"), ("stages/*.json", "json"))),
    Command("run-dry", "run {recipe} -o {out} --dry-run --set quantize.bits=3"),
)

MEASURE = (
    Command("inspect-tensors", "inspect {gemma3} --tensors", printed=True),
    Command("inspect-pruned", "inspect {of[weights-wanda]}"),
    Command("inspect-gguf", "inspect {qwen3_gguf}"),
    Command("inspect-unequal", "inspect {of[width-sensitivity]}"),
    Command("inspect-codes", "inspect {of[quantize-gptq]}"),
    Command("inspect-sparse", "inspect {of[sparse-int8]}"),
    Command("verify-pruned", "verify {of[weights-wanda]} --reference {llama} --max-kl 5 --text {text}"),
    Command("verify-unequal", "verify {of[width-sensitivity]} --reference {llama} --text {text}"),
    Command("verify-codes", "verify {of[quantize-gptq]} --text {text}"),
    _eval("eval-dense", "{llama}"),
    _eval("eval-pruned", "{of[weights-wanda]} --reference {llama}"),
    _eval("eval-printed", "{of[width-obs]} --reference {llama} --compute bfloat16", printed=True),
    _eval("eval-vocab", "{of[vocab-ratio]} --reference {llama}"),
    _eval("eval-codes", "{of[quantize-gptq]} --reference {llama}"),
    _eval("eval-native-int8", "{llama} --backend native --type int8"),
    _eval("eval-native-sparse", "{of[weights-wanda]} --backend native --type sparse-bf16"),
    _eval("eval-native-codes", "{of[sparse-codes]} --backend native --type sparse-int4"),
    Command("eval-tasks", "eval {of[weights-wanda]} --tasks arc_easy --limit 4 --bias --datasets {mirror}"),
    Command("card", "card {of[weights-wanda]} --records {said[eval-pruned]} -o {out}.md"),
    Command("advise", "advise {llama} --device pi5 --ram 2G --all"),
    Command("advise-size", "advise {of[width-obs]} --device {device} --goal size --ctx 128", printed=True),
    Command("device-list", "device --list"),
    Command("device-shown", "device orin-nano"),
)

_ROWS = "--methods wanda,width:align=8 --targets ratio=0.2 --backends none --workers 1"
ACROSS = (
    Command(
        "compare",
        f"compare {{llama}} -o {{out}} {_ROWS} --text {{text}} --window 32 -n 4 {{calib}}",
        ways=(("compare.json", "json"), ("cells/*/*.json", "json")),
    ),
    Command("report", "report {base[compare]} -o {out} --formats html,md,csv"),
    Command("adapt-rank", "adapt rank {deep} -o {out}.json {calib}"),
    Command("adapt-groups", "adapt rank {llama} -o {out}.json --groups --widths 3 --criterion flap {calib}"),
    Command("adapt-price", "adapt price {deep} {of[adapt-rank]}.json -o {out}.json {calib}"),
    Command(
        "adapt-simulate",
        "adapt simulate {of[adapt-price]}.json -o {out} --device {device} --requests 12"
        " --policies none,threshold,greedy,cost-aware,knapsack,static",
        ways=(("simulate.html", "words"),),
    ),
    Command(
        "adapt-train",
        "adapt train {of[adapt-rank]}.json -o {out}.safetensors --steps 200",
        ways=(("out.safetensors", "tensors"),),
    ),
)

_VERBS = (
    *("prune", "recover", "plan", "apply", "eval", "inspect", "verify", "quantize", "run", "export", "bench"),
    *("device", "advise", "compare", "report", "card", "serve"),
    *("adapt rank", "adapt price", "adapt simulate", "adapt train"),
)
HELP = tuple(Command(f"help-{verb.replace(' ', '-')}", f"{verb} --help", printed=True) for verb in _VERBS)

_REAL = "prune smollm2-135m -o {out} {real}"
REAL = (
    Command("real-wanda", f"{_REAL} --method wanda --sparsity 0.5"),
    Command("real-sparsegpt", f"{_REAL} --method sparsegpt --pattern 2:4"),
    Command("real-width", f"{_REAL} --method width --ratio 0.2 --criterion contribution"),
    Command("real-depth", f"{_REAL} --method depth --sub-blocks --drop-layers 3"),
    Command("real-vocab", "prune smollm2-135m -o {out} --method vocab --ratio 0.5 --calib builtin"),
    Command("real-quantize", "quantize smollm2-135m -o {out} --bits 4 --method imatrix {real}"),
    Command("real-gguf", "export {of[real-quantize]} -o {out}.gguf --no-verify"),
    Command("real-sparse", "export {of[real-wanda]} -o {out} --type sparse-int8"),
    Command("real-eval", "eval {of[real-depth]} --reference smollm2-135m --window 128 -n 2"),
    Command("real-inspect", "inspect smollm2-135m"),
)

QUICK = (*WEIGHTS, *WIDTH, *DEPTH, *QUANTIZE, *RECOVER, *EXPORT, *PLANS, *MEASURE, *ACROSS, *HELP)
