"""The shape of the house, checked on the source itself.

Who imports whom, how long things are, what may not be written.
"""

from __future__ import annotations

import ast
import io
import os
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import median, quantiles

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
DEVICE, WORKSHOP = "secateur_runtime", "secateur"

STAGES = {
    *("calibrate", "criteria", "allocate", "transform", "train", "quantizers", "measure"),
    *("export", "runtime", "device", "present"),
}
LAYERS: list[set[str]] = [{"core"}, {"tensors"}, {"model"}, STAGES, {"pipeline"}, {"adapt"}, {"cli"}]
"""Bottom first: a room may import the rooms of the layers below its own, and `secateur_runtime`."""
READ_MODELS = {"calibrate", "export"}
"""The only stages that may import `model`."""
BACKEND_USERS = {"measure", "export"}
"""Stages that may take a `runtime.Backend` as an argument."""
VERBS = {
    "compare": {"bench", "evaluate", "export", "prune"},
    "recipe": {"prune", "recover", "quantize", "evaluate", "export"},
    "bench": {"evaluate", "export"},
    "recover": {"prune"},
    "quantize": {"prune"},
    "export": {"prune"},
    "advise": {"export"},
}
"""What a verb of `pipeline` may import of the others; one that is not named imports none."""
FLOORS = 4
"""Verbs of `pipeline` that may stand on each other."""
MODULES_IN_A_FOLDER = 15
COLUMNS = 110
PARAMETERS = 8
MIRRORED = 0.9
"""Least share of source files that have a test file in the same place."""

TORCH_ON_THE_DEVICE = {
    "decoder/elastic_decoder.py",
    "decoder/kv_cache.py",
    "decoder/prefix_weights.py",
    "decoder/releasable_memory.py",
    "kernels/bitmask.py",
    "kernels/dense_or_sparse.py",
    "kernels/kernel_weight.py",
    "kernels/quantized.py",
}
"""Files of the device that still import torch. The list may only get shorter."""

SHARED_NAMES = {
    "advise.py apply.py bench.py compare.py evaluate.py": "a verb: its options, and its work",
    "plan.py prune.py quantize.py recover.py report.py verify.py": "a verb: its options, and its work",
    "decide.py": "the same question for each kind of pruning",
    "cross_tokenizer.py": "models whose tokenizers differ, side by side",
    "sparse_folder.py": "the folder of weights without zeros, read and written",
    "rope.py tokenizer.py": "a part of GGUF, read and written",
    "knapsack.py lsq.py magnitude.py none.py obs.py random.py slimllm.py two_stage.py uniform.py": (
        "one method, at the places where it decides something"
    ),
    "__init__.py": "a package",
}
"""Names that several files may have, because they mean the same thing in each."""

HEAVY = ("torch", "transformers", "numpy", "scipy")
FAMILIES = re.compile(r"llama|mistral|qwen|gemma|phi|smol", re.IGNORECASE)
MACHINE_PATH = re.compile(r"(?<![\w.~/-])/(?:home|root|work|Users|opt|mnt)/\w+")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One source file; `name` is its dotted name, such as `secateur.core.plan`."""

    path: Path
    name: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    @property
    def package(self) -> str:
        """The package: the device's or the workshop's."""
        return self.name.split(".")[0]

    @property
    def part(self) -> str:
        """The folder or file right under the package; empty for the package itself."""
        return ".".join(self.name.split(".")[1:2])

    @property
    def functions(self) -> Iterator[Function]:
        return (node for node in self.nodes if isinstance(node, Function))

    def at(self, line: int, problem: str) -> str:
        return f"{self.path}:{line}: {problem}"


def load_modules() -> list[Module]:
    modules = []
    for path in sorted([*(SRC / DEVICE).rglob("*.py"), *(SRC / WORKSHOP).rglob("*.py")]):
        parts = path.relative_to(SRC).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules.append(Module(path.relative_to(ROOT), name, path.read_text()))
    return modules


MODULES = load_modules()
NAMES = {module.name for module in MODULES}


def length(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def imports(module: Module) -> Iterator[tuple[int, str, str]]:
    """Every import, wherever it stands.

    line, module, and the name taken from it (empty for a plain import).
    """
    for node in module.nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, "." * node.level + (node.module or ""), alias.name


def targets(module: Module) -> Iterator[tuple[int, str, str]]:
    """Every import of our own: line, module, and the name taken from it (empty for a whole module)."""
    for line, source, name in imports(module):
        if source.split(".")[0] in {DEVICE, WORKSHOP}:
            whole = f"{source}.{name}" in NAMES
            yield line, f"{source}.{name}" if whole else source, "" if whole else name


def import_direction(module: Module) -> Iterator[str]:
    for line, source, _ in imports(module):
        if source.startswith("."):
            yield module.at(line, "relative import")
    for line, source, name in targets(module):
        if not may_import(module, source, name):
            yield module.at(line, f"{module.name} may not import {source}")


def may_import(module: Module, source: str, name: str) -> bool:
    own = module.part
    package, _, rest = source.partition(".")
    target = rest.split(".")[0]
    if DEVICE in (package, module.package):
        return package == DEVICE
    if own in {"", "__main__"}:
        return target != "cli" or own == "__main__"
    if not target:
        return own == "cli"
    if own == target:
        return own != "pipeline" or verb(source) in {verb(module.name), *VERBS.get(verb(module.name), ())}
    if own in STAGES and target == "model":
        return own in READ_MODELS
    if own in BACKEND_USERS and (target, name) == ("runtime", "Backend"):
        return True
    return layer(target) < layer(own)


def layer(part: str) -> int:
    """The layer of a room; the package itself is above all."""
    return next((index for index, parts in enumerate(LAYERS) if part in parts), len(LAYERS))


def verb(name: str) -> str:
    """The verb of a module of `pipeline`, empty for the package."""
    return ".".join(name.split(".")[2:3])


def known_part(module: Module) -> Iterator[str]:
    if module.package == WORKSHOP and module.part not in {"", "__main__", *set().union(*LAYERS)}:
        yield module.at(
            1, f"{module.part} is no part of the house: give it a layer in this test, with a reason"
        )


def torch_on_the_device(module: Module) -> Iterator[str]:
    if module.package == DEVICE and str(module.path.relative_to(f"src/{DEVICE}")) not in TORCH_ON_THE_DEVICE:
        for line, source, _ in imports(module):
            if source.split(".")[0] in {"torch", "transformers"}:
                yield module.at(line, f"imports {source}: the device has none")


def too_many_parameters(module: Module) -> Iterator[str]:
    methods = {
        method for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef) for method in node.body
    }
    for function in module.functions:
        spec = function.args
        static = any(ast.unparse(mark) == "staticmethod" for mark in function.decorator_list)
        count = len([*spec.posonlyargs, *spec.args, *spec.kwonlyargs]) - (function in methods and not static)
        if count > PARAMETERS:
            yield module.at(
                function.lineno, f"{function.name} has {count} parameters, {PARAMETERS} are allowed"
            )


def several_assigned_at_once(module: Module) -> Iterator[str]:
    """A swap, or what one value is unpacked into, is one thing; a tuple of values is not."""
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple):
            continue
        values = {ast.unparse(each) for each in node.value.elts}
        for target in node.targets:
            if isinstance(target, ast.Tuple) and {ast.unparse(each) for each in target.elts} != values:
                yield module.at(node.lineno, "assigns several values at once: write a statement for each")


def wide_line(module: Module) -> Iterator[str]:
    for number, line in enumerate(module.text.split("\n"), 1):
        if len(line) > COLUMNS:
            yield module.at(number, f"{len(line)} columns, {COLUMNS} are allowed")


def long_function(module: Module) -> Iterator[str]:
    for function in module.functions:
        if length(function) > 60:
            yield module.at(function.lineno, f"{function.name} has {length(function)} lines, 60 are allowed")


def long_file(module: Module) -> Iterator[str]:
    lines = module.text.count("\n")
    if lines > 400:
        yield module.at(1, f"{lines} lines, 400 are allowed")


def missing_annotation(module: Module) -> Iterator[str]:
    methods = {method for node in module.nodes if isinstance(node, ast.ClassDef) for method in node.body}
    for function in module.functions:
        spec = function.args
        arguments = [
            *spec.posonlyargs,
            *spec.args,
            *spec.kwonlyargs,
            *filter(None, [spec.vararg, spec.kwarg]),
        ]
        static = any(
            isinstance(mark, ast.Name) and mark.id == "staticmethod" for mark in function.decorator_list
        )
        for argument in arguments[1:] if function in methods and not static else arguments:
            if argument.annotation is None:
                yield module.at(
                    argument.lineno, f"argument {argument.arg} of {function.name} has no annotation"
                )
        if function.returns is None:
            yield module.at(function.lineno, f"{function.name} has no return annotation")


def missing_docstring(module: Module) -> Iterator[str]:
    def undocumented(scope: ast.Module | ast.ClassDef) -> Iterator[Function | ast.ClassDef]:
        for node in scope.body:
            if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
                continue
            if not ast.get_docstring(node):
                yield node
            if isinstance(node, ast.ClassDef):
                yield from undocumented(node)

    if not ast.get_docstring(module.tree):
        yield module.at(1, "the file has no docstring")
    for node in undocumented(module.tree):
        yield module.at(node.lineno, f"public {node.name} has no docstring")


def catch_all(module: Module) -> Iterator[str]:
    for node in module.nodes:
        if isinstance(node, ast.Try):
            for handler in node.handlers:
                caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
                if any(is_everything(kind) for kind in caught) and not may_catch_all(module, node, handler):
                    yield module.at(handler.lineno, "catches everything")
        elif (
            isinstance(node, ast.Call)
            and called(node).endswith("suppress")
            and any(map(is_everything, node.args))
        ):
            yield module.at(node.lineno, "suppresses everything")


def is_everything(kind: ast.expr | None) -> bool:
    return kind is None or ast.unparse(kind) in {"Exception", "BaseException"}


def may_catch_all(module: Module, tried: ast.Try, handler: ast.ExceptHandler) -> bool:
    """A handler that cleans up and raises again.

    Or one call of a library that raises bare Exception, with the reason above, marked or raised as the cause
    of another error.
    """
    last, (above, line) = handler.body[-1], module.text.split("\n")[handler.lineno - 2 : handler.lineno]
    again = isinstance(last, ast.Raise) and last.exc is None
    marked = "noqa: BLE001" in line or (isinstance(last, ast.Raise) and last.cause is not None)
    return again or (len(tried.body) == 1 and marked and above.lstrip().startswith("# "))


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def unfinished(module: Module) -> Iterator[str]:
    for node in module.nodes:
        if isinstance(node, ast.Name) and node.id == "NotImplementedError":
            yield module.at(node.lineno, "NotImplementedError: what is not there is not offered")
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type == tokenize.COMMENT and (mark := re.search(r"\b(TODO|FIXME|XXX|HACK)\b", token.string)):
            yield module.at(token.start[0], f"{mark[0]} left in a comment")


def unsafe_reading(module: Module) -> Iterator[str]:
    for line, source, name in imports(module):
        if source.split(".")[0] in {
            "pickle",
            "cPickle",
            "dill",
            "cloudpickle",
            "marshal",
            "shelve",
            "joblib",
        }:
            yield module.at(line, f"imports {source}, whose files run code when read")
        if (source, name) == ("torch", "load"):
            yield module.at(line, "imports torch.load, whose files run code when read")
    for node in module.nodes:
        if isinstance(node, ast.Call) and called(node) in {"torch.load", "eval", "exec"}:
            yield module.at(node.lineno, f"calls {called(node)}")
        if (
            isinstance(node, ast.keyword)
            and node.arg == "allow_pickle"
            and ast.unparse(node.value) != "False"
        ):
            yield module.at(node.value.lineno, "allows pickle")


def family_by_name(module: Module) -> Iterator[str]:
    for node in module.nodes:
        if not isinstance(node, ast.Compare) or not isinstance(node.ops[0], ast.In | ast.NotIn):
            continue
        if isinstance(node.left, ast.Constant) and FAMILIES.search(str(node.left.value)):
            yield module.at(node.lineno, f"asks whether {node.left.value!r} is in a name: families are data")


def heavy_cli(module: Module) -> Iterator[str]:
    if module.part != "cli":
        return
    lazy = {inner for function in module.functions for inner in ast.walk(function)}
    for node in module.nodes:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            lazy |= set(ast.walk(node))
    for node in module.nodes:
        if node not in lazy and isinstance(node, ast.Import | ast.ImportFrom):
            names = (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names]
            )
            for name in names:
                if name.split(".")[0] in HEAVY:
                    yield module.at(
                        node.lineno, f"imports {name} before a verb runs, and --help waits for it"
                    )


EXITS = {"sys.exit", "os._exit", "exit", "SystemExit", "typer.Exit"}


def bare_exit_code(module: Module) -> Iterator[str]:
    """Exit codes are those of `ExitCode`, and a number is none of them."""
    for node in module.nodes:
        given: list[ast.expr] = []
        if isinstance(node, ast.Call) and called(node) in EXITS:
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).endswith("exit_code"):
            given = [node.value]
        for value in given:
            if isinstance(value, ast.Constant) and isinstance(value.value, int):
                yield module.at(value.lineno, "exits with a number: take it from ExitCode")


ONE_PLACE = {
    r"/proc/meminfo|virtual_memory\(": "secateur_runtime.sensors.machine",
    r"/sys/fs/cgroup": "secateur_runtime.sensors.cgroup",
    r"sched_getaffinity|cpu_count": "secateur_runtime.cores",
    r"\bPath\.home\(|XDG_CACHE_HOME|\"SECATEUR_CACHE\"": "secateur_runtime.cache_folder",
    r"\bfcntl\b|\bflock\b": "secateur_runtime.files",
    r"= \"(plan\.json|README\.md|secateur\.json)\"": "secateur.core.folder_files",
    r"\bunittest\b": "",
}
"""What stands in one module only, or in none: the others call it."""


def one_place(module: Module) -> Iterator[str]:
    for number, line in enumerate(module.text.split("\n"), 1):
        for words, owner in ONE_PLACE.items():
            if module.name != owner and (found := re.search(words, line)):
                place = f"belongs into {owner}" if owner else "is for tests"
                yield module.at(number, f"{found[0]} {place}")


Rule = Callable[[Module], Iterator[str]]
RULES: list[Rule] = [
    *(import_direction, known_part, long_function, long_file, missing_annotation, missing_docstring),
    *(catch_all, unfinished, unsafe_reading, family_by_name, heavy_cli),
    *(bare_exit_code, one_place),
    *(torch_on_the_device, too_many_parameters, several_assigned_at_once, wide_line),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule(rule: Rule) -> None:
    problems = dict.fromkeys(problem for module in MODULES for problem in rule(module))
    assert not problems, "\n" + "\n".join(problems)


BROKEN: list[tuple[Rule, str, str]] = [
    (import_direction, "secateur_runtime.ladder", "from secateur.core.plan import Plan"),
    (import_direction, "secateur.core.plan", "from secateur.tensors.source import Source"),
    (import_direction, "secateur.core.plan", "import secateur.model.handle"),
    (import_direction, "secateur.core.plan", "from secateur.model import handle"),
    (import_direction, "secateur.core.plan", "from . import graph"),
    (import_direction, "secateur.tensors.source", "from secateur.model.handle import open_model"),
    (import_direction, "secateur.criteria.wanda", "def f():\n    from secateur.model.block_stream import X"),
    (import_direction, "secateur.criteria.wanda", "from secateur.runtime import Backend"),
    (import_direction, "secateur.export.gguf.writer", "from secateur.runtime import Memory"),
    (import_direction, "secateur.runtime.native", "from secateur.model import handle"),
    (import_direction, "secateur.transform.mask", "import secateur"),
    (import_direction, "secateur.pipeline.prune.apply", "from secateur.cli.shared import printing"),
    (import_direction, "secateur.pipeline.prune.apply", "from secateur.pipeline.export.gguf import export"),
    (import_direction, "secateur.pipeline.advise.advise", "from secateur.pipeline.prune.apply import apply"),
    (import_direction, "secateur.pipeline.compare.rows", "from secateur.adapt.api import rank"),
    (import_direction, "secateur", "from secateur.cli.main import main"),
    (torch_on_the_device, "secateur_runtime.server.http.app", "import torch.nn"),
    (torch_on_the_device, "secateur_runtime.ladder", "def f():\n    from transformers import AutoConfig"),
    (too_many_parameters, "secateur.core.plan", "def f(a, b, c, d, e, f, g, h, *, i): ..."),
    (too_many_parameters, "secateur.core.plan", "class A:\n    def f(self, a, b, c, d, e, f, g, h, i): ..."),
    (several_assigned_at_once, "secateur.core.plan", "a, b = 1, 2"),
    (several_assigned_at_once, "secateur.core.plan", "self.a, self.b = a, b"),
    (wide_line, "secateur.core.plan", "x = 1  #" + "x" * 110),
    (known_part, "secateur.utils", ""),
    (long_function, "secateur.core.plan", "def f():\n" + "    f()\n" * 60),
    (long_file, "secateur.core.plan", "f()\n" * 401),
    (missing_annotation, "secateur.core.plan", "def f(a) -> None: ..."),
    (missing_annotation, "secateur.core.plan", "def f(*a, b: int) -> None: ..."),
    (missing_annotation, "secateur.core.plan", "class A:\n    def f(self, *, b) -> None: ..."),
    (missing_annotation, "secateur.core.plan", "def f(a: int): ..."),
    (missing_docstring, "secateur.core.plan", "'''Doc.'''\ndef f(): ..."),
    (missing_docstring, "secateur.core.plan", "'''Doc.'''\nclass A:\n    '''Doc.'''\n    def f(self): ..."),
    (missing_docstring, "secateur.core.plan", "x = 1"),
    (catch_all, "secateur.core.plan", "try: f()\nexcept: pass"),
    (catch_all, "secateur.core.plan", "try: f()\nexcept Exception as e: print(e)"),
    (catch_all, "secateur.core.plan", "try: f()\nexcept (OSError, BaseException): raise ValueError"),
    (catch_all, "secateur.core.plan", "try: f()\nexcept Exception: pass  # noqa: BLE001"),
    (
        catch_all,
        "secateur.core.plan",
        "try:\n    f()\n    g()\n# Reason.\nexcept Exception: pass  # noqa: BLE001",
    ),
    (catch_all, "secateur.core.plan", "try: f()\nexcept Exception as e: raise ValueError from e"),
    (catch_all, "secateur.core.plan", "with contextlib.suppress(Exception): f()"),
    (unfinished, "secateur.core.plan", "raise NotImplementedError"),
    (unfinished, "secateur.core.plan", "x = 1  # TODO: two"),
    (unsafe_reading, "secateur.core.plan", "import pickle"),
    (unsafe_reading, "secateur.core.plan", "from torch import load"),
    (unsafe_reading, "secateur.core.plan", "import torch\ntorch.load('x')"),
    (unsafe_reading, "secateur.core.plan", "numpy.load('x', allow_pickle=True)"),
    (unsafe_reading, "secateur.core.plan", "eval('x')"),
    (family_by_name, "secateur.model.families", "if 'llama' in name.lower(): pass"),
    (bare_exit_code, "secateur.cli.main", "sys.exit(130)"),
    (bare_exit_code, "secateur.cli.main", "raise typer.Exit(code=3)"),
    (bare_exit_code, "secateur_runtime.errors", "class A(Exception):\n    exit_code = 2"),
    (one_place, "secateur.device.probe", "path = '/proc/meminfo'"),
    (one_place, "secateur.device.probe", "psutil.virtual_memory().total"),
    (one_place, "secateur.device.probe", "os.cpu_count()"),
    (one_place, "secateur.device.probe", "Path.home() / '.cache'"),
    (one_place, "secateur.pipeline.compare.compare", "import fcntl"),
    (one_place, "secateur.pipeline.compare.compare", 'CARD = "README.md"'),
    (one_place, "secateur.measure.perplexity", "from unittest.mock import patch"),
    (heavy_cli, "secateur.cli.model.prune", "import torch.nn"),
    (heavy_cli, "secateur.cli.model.prune", "if x:\n    from transformers import AutoTokenizer"),
]

SOUND: list[tuple[Rule, str, str]] = [
    (import_direction, "secateur_runtime.ladder", "from secateur_runtime.errors import LadderError"),
    (import_direction, "secateur.core.plan", "from secateur_runtime.errors import PlanError"),
    (import_direction, "secateur.export.gguf.writer", "from secateur.runtime import Backend"),
    (import_direction, "secateur.export.gguf.writer", "from secateur.model.handle import open_model"),
    (import_direction, "secateur.pipeline.export.gguf", "from secateur.pipeline.prune.apply import apply"),
    (import_direction, "secateur.adapt.api", "from secateur.pipeline.prune.apply import apply"),
    (
        import_direction,
        "secateur.cli.model.prune",
        "import secateur\nfrom secateur.pipeline.prune import apply",
    ),
    (bare_exit_code, "secateur.cli.main", "sys.exit(ExitCode.FAILED)\nsys.exit(error.exit_code)"),
    (one_place, "secateur_runtime.cores", "os.cpu_count()"),
    (too_many_parameters, "secateur.core.plan", "class A:\n    def f(self, a, b, c, d, e, f, g, h): ..."),
    (several_assigned_at_once, "secateur.core.plan", "a, b = b, a\nc, d = f()\n(e, *g) = h"),
    (
        missing_annotation,
        "secateur.core.plan",
        "class A:\n    @classmethod\n    def f(cls, a: int) -> None: ...",
    ),
    (missing_docstring, "secateur.core.plan", "'''Doc.'''\ndef _f(): ...\nclass _A:\n    def f(self): ..."),
    (catch_all, "secateur.core.plan", "try: f()\nexcept BaseException:\n    clean()\n    raise"),
    (
        catch_all,
        "secateur.core.plan",
        (
            "try: f()\n# The library raises nothing narrower.\nexcept Exception as e:  # noqa: BLE001\n   "
            " raise ValueError"
        ),
    ),
    (
        catch_all,
        "secateur.core.plan",
        "try: f()\n# Code of others.\nexcept Exception as e:\n    raise ValueError from e",
    ),
    (
        heavy_cli,
        "secateur.cli.model.prune",
        "if TYPE_CHECKING:\n    import torch\ndef f():\n    import torch",
    ),
]


def path_of(name: str) -> Path:
    return Path("src", *name.split(".")).with_suffix(".py")


@pytest.mark.parametrize(("rule", "name", "text"), BROKEN)
def test_rule_sees_what_is_broken(rule: Rule, name: str, text: str) -> None:
    found = list(rule(Module(path_of(name), name, text)))
    assert found
    assert all(re.match(r"src/[\w/]+\.py:\d+: ", problem) for problem in found)


@pytest.mark.parametrize(("rule", "name", "text"), SOUND)
def test_rule_lets_sound_code_pass(rule: Rule, name: str, text: str) -> None:
    assert not list(rule(Module(path_of(name), name, text)))


def edges() -> dict[str, set[str]]:
    """Which module imports which, what only a type checker reads left out."""
    found: dict[str, set[str]] = {}
    for module in MODULES:
        typed = {
            inner.lineno
            for node in ast.walk(module.tree)
            if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
            for inner in ast.walk(node)
            if isinstance(inner, ast.stmt)
        }
        sources = {source for line, source, _ in targets(module) if line not in typed}
        found[module.name] = (sources & NAMES) - {module.name}
    return found


def floors(below: dict[str, set[str]]) -> dict[str, int]:
    """The floor of each node, 1 for what imports none of the others; CycleError where there is a circle."""
    found: dict[str, int] = {}
    for name in TopologicalSorter(below).static_order():
        found[name] = 1 + max((found[each] for each in below.get(name, ())), default=0)
    return found


def test_no_circle_of_imports() -> None:
    assert len(floors(edges())) == len(MODULES)


def test_a_circle_is_seen() -> None:
    with pytest.raises(CycleError):
        floors({"a": {"b"}, "b": {"c"}, "c": {"a"}})


def test_the_pipeline_has_few_floors() -> None:
    below: dict[str, set[str]] = {}
    for name, sources in edges().items():
        if name.startswith("secateur.pipeline.") and verb(name):
            others = {verb(source) for source in sources if source.startswith("secateur.pipeline.")}
            below.setdefault(verb(name), set()).update(others - {verb(name), ""})
    found = floors(below)
    assert max(found.values()) <= FLOORS, found


def test_the_pipeline_is_a_folder_of_verbs() -> None:
    package = next(module for module in MODULES if module.name == "secateur.pipeline")
    assert [type(node) for node in package.tree.body] == [ast.Expr]
    assert not list((SRC / WORKSHOP / "pipeline").glob("[!_]*.py"))


def test_folders_are_small() -> None:
    counts = Counter(module.path.parent for module in MODULES if module.path.name != "__init__.py")
    assert not {str(folder): count for folder, count in counts.items() if count > MODULES_IN_A_FOLDER}


def test_no_class_name_twice() -> None:
    where: dict[str, list[str]] = {}
    for module in MODULES:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                where.setdefault(node.name, []).append(f"{module.path}:{node.lineno}")
    assert not {name: places for name, places in where.items() if len(places) > 1}


def test_no_file_name_with_two_meanings() -> None:
    shared = {name for names in SHARED_NAMES for name in names.split()}
    where: dict[str, list[str]] = {}
    for module in MODULES:
        where.setdefault(module.path.name, []).append(str(module.path))
    assert not {name: paths for name, paths in where.items() if len(paths) > 1 and name not in shared}
    assert not [name for name in shared if len(where.get(name, ())) < 2], "names that are not shared any more"


def test_the_torch_list_only_gets_shorter() -> None:
    """A file that no longer imports torch leaves the list."""
    found = {
        str(module.path.relative_to(f"src/{DEVICE}"))
        for module in MODULES
        if module.package == DEVICE
        and any(source.split(".")[0] == "torch" for _, source, _ in imports(module))
    }
    assert found == TORCH_ON_THE_DEVICE


def test_the_tests_mirror_the_source() -> None:
    sources = [module.path.relative_to("src") for module in MODULES if not module.path.name.startswith("__")]
    lacking = [str(path) for path in sources if not (ROOT / "tests" / mirrored(path)).exists()]
    told = f"{len(lacking)} of {len(sources)} files have no test file:\n" + "\n".join(lacking)
    assert len(lacking) <= (1 - MIRRORED) * len(sources), told


def mirrored(path: Path) -> Path:
    """Where the test of a source file is: the workshop's under `tests`, the device's under its own name."""
    place = path.relative_to(WORKSHOP) if path.parts[0] == WORKSHOP else path
    return place.with_name(f"test_{place.name}")


def test_columns_of_other_sources() -> None:
    paths = [path for end in ("c", "h", "css", "js", "html") for path in SRC.rglob(f"*.{end}")]
    assert paths
    wide = [
        f"{path.relative_to(ROOT)}:{number}: {len(line)} columns"
        for path in paths
        for number, line in enumerate(path.read_text().split("\n"), 1)
        if len(line) > COLUMNS
    ]
    assert not wide, "\n" + "\n".join(wide)


def test_most_functions_are_short() -> None:
    lengths = {
        f"{module.path}:{function.lineno}: {function.name}": length(function)
        for module in MODULES
        for function in module.functions
    }
    longest = "\n".join(sorted(lengths, key=lambda name: -lengths[name])[:20])
    assert median(lengths.values()) <= 12, (
        f"median {median(lengths.values())} lines, 12 are allowed; the longest:\n{longest}"
    )
    ninth = quantiles(lengths.values(), n=10)[-1]
    assert ninth <= 35, f"nine in ten have up to {ninth} lines, 35 are allowed; the longest:\n{longest}"


def test_most_files_are_short() -> None:
    middle = median(module.text.count("\n") for module in MODULES)
    assert middle <= 150, f"median {middle} lines, 150 are allowed"


def test_help_is_instant() -> None:
    """The command must not import what takes seconds before a verb is known."""
    names = [module.name for module in MODULES if module.part == "cli"]
    if "secateur.cli.main" not in names:
        pytest.skip("the command is not there yet")
    code = f"import sys\nimport {', '.join(names)}\nprint(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "", f"importing the command also imports {done.stdout.strip()}"


def test_no_path_of_a_machine() -> None:
    tracked = (
        subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
        if (ROOT / ".git").exists()
        else None
    )
    if tracked is None or tracked.returncode:
        pytest.skip("not a git checkout")
    problems = []
    for name in filter(None, os.fsdecode(tracked.stdout).split("\0")):
        path = ROOT / name
        text = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        for number, line in enumerate(text.decode("utf-8", "replace").split("\n"), 1):
            if b"\0" not in text and (found := MACHINE_PATH.search(line)):
                problems.append(f"{name}:{number}: names {found[0]}, a path of one machine")
    assert not problems, "\n" + "\n".join(problems)
