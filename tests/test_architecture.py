"""The architecture is a test: which package may import which, and the house rules that a parser can see."""

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parent.parent

MAY_IMPORT = {
    "detector": set[str](),
    "templates_store": {"detector"},
    "offline": {"detector", "templates_store"},
    "service": {"detector", "templates_store"},
}
"""The arrows: they point one way only, and service and offline never meet."""

FORBIDDEN = {
    "detector": "os pathlib io json time datetime shutil tempfile socket http urllib subprocess logging "
    "fastapi starlette uvicorn httpx PIL safetensors sklearn offline service templates_store",
    "templates_store": "fastapi starlette uvicorn httpx sklearn typer rich",
    "offline": "fastapi starlette uvicorn",
    "service": "torch.nn torch.linalg torch.fft torch.autograd sklearn scipy",
}
"""What a package must not touch: the method no files, HTTP or clock; the service no maths."""

UNPICKLES = "pickle cPickle dill cloudpickle joblib shelve marshal torch.load torch.save"
MAY_PRINT = {"offline/console.py", "offline/cli/app.py"}
MOST_LINES = 350
MACHINE_PATH = re.compile(r"(?<![\w.~-])" + "/" + r"(?:work|root|home)/")
IGNORED_DIRECTORIES = {"artifacts", "data", "weights", "build", "dist", "__pycache__"}

Check = Callable[[PurePosixPath, ast.Module, str], Iterator[str]]


def imported_names(path: PurePosixPath, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything that a file imports, by a statement or by a constant string."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = path.parts[: max(len(path.parts) - node.level, 0)] if node.level else ()
            module = [*above, *([node.module] if node.module else [])]
            yield from ((node.lineno, ".".join([*module, alias.name])) for alias in node.names)
        elif isinstance(node, ast.Call) and dotted(node.func).endswith(("import_module", "__import__")):
            constants = (arg.value for arg in node.args if isinstance(arg, ast.Constant))
            yield from ((node.lineno, value) for value in constants if isinstance(value, str))


def dotted(node: ast.AST) -> str:
    """`torch.load` of the expression torch.load; empty for what is no chain of names."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def is_within(name: str, modules: str) -> str:
    """The module of a list of words that `name` is or lies in; empty if in none."""
    return next((module for module in modules.split() if name == module or name.startswith(f"{module}.")), "")


def check_arrows(path: PurePosixPath, tree: ast.Module, _: str) -> Iterator[str]:
    package = path.parts[0]
    for line, name in imported_names(path, tree):
        top = name.split(".")[0]
        room = name.split(".")[1] if top == "modeguard" and "." in name else ""
        if room in MAY_IMPORT and room != package and room not in MAY_IMPORT[package]:
            yield f"{path}:{line}: {package} must not import {room}"
        if top in MAY_IMPORT:
            yield f"{path}:{line}: {top} is imported as modeguard.{top}"


def check_forbidden(path: PurePosixPath, tree: ast.Module, _: str) -> Iterator[str]:
    package = path.parts[0]
    for line, name in imported_names(path, tree):
        if module := is_within(name, FORBIDDEN[package]):
            yield f"{path}:{line}: {package} must not use {module}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (module := is_within(dotted(node), FORBIDDEN[package])):
            yield f"{path}:{node.lineno}: {package} must not use {module}"


def check_pickle(path: PurePosixPath, tree: ast.Module, _: str) -> Iterator[str]:
    for line, name in imported_names(path, tree):
        if is_within(name, UNPICKLES):
            yield f"{path}:{line}: {name} runs code that a file chooses; use safetensors and JSON"
    tensors_only = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call) and reads_tensors_only(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_within(dotted(node), UNPICKLES) and id(node) not in tensors_only:
            yield f"{path}:{node.lineno}: {dotted(node)} runs code that a file chooses; use safetensors and JSON"
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            yield f"{path}:{node.value.lineno}: allow_pickle runs code that a file chooses"


def reads_tensors_only(call: ast.Call) -> bool:
    """Whether this is torch.load with its restricted reader, which knows tensors and containers and nothing else."""
    return any(word.arg == "weights_only" and ast.unparse(word.value) == "True" for word in call.keywords)


def check_print(path: PurePosixPath, tree: ast.Module, _: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func) == "print" and str(path) not in MAY_PRINT:
            yield f"{path}:{node.lineno}: print outside the console"


def check_docstring(path: PurePosixPath, tree: ast.Module, _: str) -> Iterator[str]:
    if not ast.get_docstring(tree):
        yield f"{path}:1: no docstring that says what the file is for"


def check_length(path: PurePosixPath, _: ast.Module, source: str) -> Iterator[str]:
    if (n_lines := len(source.splitlines())) > MOST_LINES:
        yield f"{path}:{n_lines}: more than {MOST_LINES} lines"


OF_EVERY_FILE: tuple[Check, ...] = (check_docstring, check_length)
OF_PACKAGES: tuple[Check, ...] = (check_arrows, check_forbidden, check_pickle, check_print)


def complaints(path: PurePosixPath, source: str) -> list[str]:
    """What is wrong with one Python file, by its path in the repository."""
    tree = ast.parse(source)
    checks = OF_EVERY_FILE + (OF_PACKAGES if path.parts[0] in MAY_IMPORT else ())
    return [complaint for check in checks for complaint in check(path, tree, source)]


def machine_paths(path: PurePosixPath, text: str) -> list[str]:
    """Lines of a file that name a place on somebody's machine."""
    return [f"{path}:{k}: {line.strip()}" for k, line in enumerate(text.splitlines(), 1) if MACHINE_PATH.search(line)]


def repository_files() -> list[PurePosixPath]:
    """Files that belong to the repository: git's list, or without git all but hidden and ignored directories."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (FileNotFoundError, subprocess.CalledProcessError):
        listed = [str(file.relative_to(ROOT)) for file in ROOT.rglob("*") if file.is_file()]
        listed = [name for name in listed if not any(map(is_ignored, Path(name).parts[:-1]))]
    return [PurePosixPath(name) for name in sorted(listed) if (ROOT / name).is_file()]


def is_ignored(directory: str) -> bool:
    return directory in IGNORED_DIRECTORIES or (directory.startswith(".") and directory not in {".ci", ".github"})


PYTHON_FILES = [path for path in repository_files() if path.suffix == ".py"]


@pytest.mark.parametrize("path", PYTHON_FILES, ids=str)
def test_the_file_keeps_the_rules(path: PurePosixPath) -> None:
    assert complaints(path, (ROOT / path).read_text(encoding="utf-8")) == []


def test_all_four_packages_are_looked_at() -> None:
    assert {path.parts[0] for path in PYTHON_FILES} >= set(MAY_IMPORT)


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    found = []
    for path in repository_files():
        try:
            found += machine_paths(path, (ROOT / path).read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            continue  # a picture
    assert found == []


@pytest.mark.parametrize(
    ("path", "line", "complaint"),
    [
        ("detector/a.py", "from templates_store.bundle import read_bundle", "must not import templates_store"),
        ("templates_store/a.py", "import offline.recipe", "must not import offline"),
        ("offline/a.py", "from service import app", "must not import service"),
        ("service/a.py", "def f():\n    import offline", "must not import offline"),
        (
            "service/a.py",
            "import importlib\nimportlib.import_module('modeguard.offline.cli.app')",
            "must not import offline",
        ),
        ("detector/inner/a.py", "from ... import offline", "must not import offline"),
        ("detector/a.py", "import os.path", "must not use os"),
        ("detector/a.py", "from time import monotonic", "must not use time"),
        ("detector/a.py", "if True:\n    from PIL import Image", "must not use PIL"),
        ("service/a.py", "from torch.nn import functional as F", "must not use torch.nn"),
        ("service/a.py", "import torch\ntorch.nn.functional.softmax(x)", "must not use torch.nn"),
        ("offline/a.py", "import pickle", "runs code"),
        ("offline/a.py", "import torch\ntorch.load('weights')", "runs code"),
        ("offline/a.py", "import torch\ntorch.load('weights', weights_only=False)", "runs code"),
        ("offline/a.py", "from torch import load", "runs code"),
        ("offline/a.py", "np.load(file, allow_pickle=True)", "allow_pickle"),
        ("service/a.py", "print('here')", "print outside the console"),
        ("tests/a.py", "x = 1\n" * MOST_LINES, "more than 350 lines"),
    ],
)
def test_a_broken_rule_is_seen(path: str, line: str, complaint: str) -> None:
    found = complaints(PurePosixPath(path), f'"""A file."""\n{line}\n')
    assert any(complaint in each for each in found), found


def test_a_missing_docstring_is_seen() -> None:
    assert complaints(PurePosixPath("benchmarks/a.py"), "x = 1\n") != []


def test_what_is_allowed_passes() -> None:
    lines = (
        "from detector import detect",
        "from . import errors",
        "torch.load(file, weights_only=True)",
        "torch.saved()",
    )
    source = "\n".join(['"""A file."""', *lines, ""])
    assert complaints(PurePosixPath("service/a.py"), source) == []
    assert complaints(PurePosixPath("offline/console.py"), '"""A file."""\nprint("result")\n') == []


def test_a_machine_path_is_seen_and_an_address_is_not() -> None:
    path = PurePosixPath("README.md")
    assert machine_paths(path, "see /" + "home/me/data\nand /" + "work/x") != []
    assert machine_paths(path, "https://example.org/" + "home/page and ./" + "work/x") == []
