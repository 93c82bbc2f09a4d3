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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median, quantiles

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "secateur"

STAGES = {
    *("model", "calibrate", "criteria", "allocate", "transform", "train", "quantizers", "measure"),
    *("export", "runtime", "sparse", "device", "present"),
}
FLOWS = {"pipeline", "adapt", "serve"}
TOP = {"cli", "__main__"}
BACKEND_USERS = {"measure", "export"}
"""Stages that may take a `runtime.Backend` as an argument."""
MADE_OF = {("runtime", "sparse")}
"""The native backend is made of the kernels and is nothing without them."""

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

    @property
    def part(self) -> str:
        """The folder or file right under the package; empty for the package itself."""
        return ".".join(self.name.split(".")[1:2])

    @property
    def functions(self) -> Iterator[Function]:
        return (node for node in ast.walk(self.tree) if isinstance(node, Function))

    def at(self, line: int, problem: str) -> str:
        return f"{self.path}:{line}: {problem}"


def load_modules() -> list[Module]:
    modules = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules.append(Module(path.relative_to(ROOT), name, path.read_text()))
    return modules


MODULES = load_modules()


def length(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def imports(module: Module) -> Iterator[tuple[int, str, str]]:
    """Every import, wherever it stands.

    line, module, and the name taken from it (empty for a plain import).
    """
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, "." * node.level + (node.module or ""), alias.name


def import_direction(module: Module) -> Iterator[str]:
    for line, source, name in imports(module):
        first, *rest = source.split(".")
        if source.startswith("."):
            yield module.at(line, "relative import")
        elif first == "secateur":
            target = rest[0] if rest else name if name in STAGES | FLOWS | TOP | {"core"} else ""
            if not may_import(module.part, target, name):
                yield module.at(
                    line, f"{module.part or 'the package'} may not import {target or 'the package'}"
                )


def may_import(part: str, target: str, name: str) -> bool:
    if target in {part, "core"}:
        return True
    if part in STAGES:
        return (part, target) in MADE_OF or (
            part in BACKEND_USERS and target == "runtime" and name == "Backend"
        )
    if part in FLOWS or not part:
        return target in STAGES | FLOWS
    return part in TOP


def known_part(module: Module) -> Iterator[str]:
    if module.part and module.part not in STAGES | FLOWS | TOP | {"core"}:
        yield module.at(
            1, f"{module.part} is no part of the house: give it a layer in this test, with a reason"
        )


def long_function(module: Module) -> Iterator[str]:
    for function in module.functions:
        if length(function) > 60:
            yield module.at(function.lineno, f"{function.name} has {length(function)} lines, 60 are allowed")


def long_file(module: Module) -> Iterator[str]:
    lines = module.text.count("\n")
    if lines > 400:
        yield module.at(1, f"{lines} lines, 400 are allowed")


def missing_annotation(module: Module) -> Iterator[str]:
    methods = {
        method for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef) for method in node.body
    }
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
    for node in ast.walk(module.tree):
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

    Or one call of a library that raises bare Exception, marked, with the reason above.
    """
    last, (above, line) = handler.body[-1], module.text.split("\n")[handler.lineno - 2 : handler.lineno]
    again = isinstance(last, ast.Raise) and last.exc is None
    return again or (len(tried.body) == 1 and "noqa: BLE001" in line and above.lstrip().startswith("# "))


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def unfinished(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
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
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and called(node) in {"torch.load", "eval", "exec"}:
            yield module.at(node.lineno, f"calls {called(node)}")
        if (
            isinstance(node, ast.keyword)
            and node.arg == "allow_pickle"
            and ast.unparse(node.value) != "False"
        ):
            yield module.at(node.value.lineno, "allows pickle")


def family_by_name(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Compare) or not isinstance(node.ops[0], ast.In | ast.NotIn):
            continue
        if isinstance(node.left, ast.Constant) and FAMILIES.search(str(node.left.value)):
            yield module.at(node.lineno, f"asks whether {node.left.value!r} is in a name: families are data")


def heavy_cli(module: Module) -> Iterator[str]:
    if module.part != "cli":
        return
    lazy = {inner for function in module.functions for inner in ast.walk(function)}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            lazy |= set(ast.walk(node))
    for node in ast.walk(module.tree):
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


Rule = Callable[[Module], Iterator[str]]
RULES: list[Rule] = [
    *(import_direction, known_part, long_function, long_file, missing_annotation, missing_docstring),
    *(catch_all, unfinished, unsafe_reading, family_by_name, heavy_cli),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule(rule: Rule) -> None:
    problems = dict.fromkeys(problem for module in MODULES for problem in rule(module))
    assert not problems, "\n" + "\n".join(problems)


BROKEN: list[tuple[Rule, str, str]] = [
    (import_direction, "secateur.core.plan", "from secateur.model import source"),
    (import_direction, "secateur.core.plan", "import secateur.model"),
    (import_direction, "secateur.core.plan", "from secateur import model"),
    (import_direction, "secateur.core.plan", "from . import graph"),
    (
        import_direction,
        "secateur.criteria.wanda",
        "def f():\n    from secateur.model.block_stream import Stream",
    ),
    (import_direction, "secateur.criteria.wanda", "from secateur.runtime import Backend"),
    (import_direction, "secateur.export.gguf.writer", "from secateur.runtime import Torch"),
    (import_direction, "secateur_runtime.kernels.library", "from secateur.runtime import Backend"),
    (import_direction, "secateur.runtime.native", "from secateur.model import opened"),
    (import_direction, "secateur.transform.mask", "import secateur"),
    (import_direction, "secateur.pipeline", "from secateur.cli import show"),
    (import_direction, "secateur", "from secateur.cli.main import main"),
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
    (catch_all, "secateur.core.plan", "with contextlib.suppress(Exception): f()"),
    (unfinished, "secateur.core.plan", "raise NotImplementedError"),
    (unfinished, "secateur.core.plan", "x = 1  # TODO: two"),
    (unsafe_reading, "secateur.core.plan", "import pickle"),
    (unsafe_reading, "secateur.core.plan", "from torch import load"),
    (unsafe_reading, "secateur.core.plan", "import torch\ntorch.load('x')"),
    (unsafe_reading, "secateur.core.plan", "numpy.load('x', allow_pickle=True)"),
    (unsafe_reading, "secateur.core.plan", "eval('x')"),
    (family_by_name, "secateur.model.families", "if 'llama' in name.lower(): pass"),
    (heavy_cli, "secateur.cli.model.prune", "import torch.nn"),
    (heavy_cli, "secateur.cli.model.prune", "if x:\n    from transformers import AutoTokenizer"),
]

SOUND: list[tuple[Rule, str, str]] = [
    (import_direction, "secateur.export.gguf.writer", "from secateur.runtime import Backend"),
    (
        import_direction,
        "secateur.runtime.native",
        "from secateur_runtime.decoder.native_decoder import Decoder",
    ),
    (import_direction, "secateur.adapt.ladder", "from secateur.pipeline import prune"),
    (import_direction, "secateur.cli.model.prune", "import secateur\nfrom secateur import pipeline"),
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
        heavy_cli,
        "secateur.cli.model.prune",
        "if TYPE_CHECKING:\n    import torch\ndef f():\n    import torch",
    ),
]


@pytest.mark.parametrize(("rule", "name", "text"), BROKEN)
def test_rule_sees_what_is_broken(rule: Rule, name: str, text: str) -> None:
    found = list(rule(Module(Path("broken.py"), name, text)))
    assert found
    assert all(re.match(r"broken\.py:\d+: ", problem) for problem in found)


@pytest.mark.parametrize(("rule", "name", "text"), SOUND)
def test_rule_lets_sound_code_pass(rule: Rule, name: str, text: str) -> None:
    assert not list(rule(Module(Path("sound.py"), name, text)))


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
