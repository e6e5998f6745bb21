"""The architecture is a test: which room may import which, and the house rules that no linter knows."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

import pytest

from tests.imports import MODULES, PYTHON_FILES, dotted, imported_names, parsed
from tests.repository import ROOMS, ROOT, repository_files

MAY_IMPORT = {
    "detector": set[str](),
    "templates_store": {"detector"},
    "offline": {"detector", "templates_store"},
    "service": {"detector", "templates_store"},
}
"""The arrows: they point one way only, and service and offline never meet."""

LAYERS = {
    "offline": "cli | pipeline | recipe report | evaluation | attacks training tuning | data | console seeds",
    "service": "__main__ | app | api | http | inference | settings logs",
    "templates_store": "bundles | classifiers images templates | files",
}
"""Inside a package: what stands further left may import what stands further right, and in one layer nobody another."""

FORBIDDEN = {
    "detector": "os pathlib io json time datetime shutil tempfile socket http urllib subprocess logging "
    "fastapi starlette uvicorn httpx PIL safetensors sklearn",
    "templates_store": "fastapi starlette uvicorn httpx sklearn typer rich",
    "offline": "fastapi starlette uvicorn",
    "service": "torch.nn torch.linalg torch.fft torch.autograd sklearn scipy",
}
"""What a package must not touch: the method no files, HTTP or clock; the service no maths."""

UNPICKLES = "pickle cPickle dill cloudpickle joblib shelve marshal torch.load torch.save"
MACHINE_PATH = re.compile(r"(?<![\w.~-])" + "/" + r"(?:work|root|home)/")

Check = Callable[[PurePosixPath, ast.Module], Iterator[str]]


def is_within(name: str, modules: str) -> str:
    """The module of a list of words that `name` is or lies in; empty if in none."""
    return next((module for module in modules.split() if name == module or name.startswith(f"{module}.")), "")


def check_arrows(path: PurePosixPath, tree: ast.Module) -> Iterator[str]:
    package = path.parts[0]
    for line, name in imported_names(path, tree):
        top, room, *_ = *name.split("."), "", ""
        if top in ROOMS:
            yield f"{path}:{line}: {top} is imported as modeguard.{top}"
        elif top == "modeguard" and room not in ROOMS:
            yield f"{path}:{line}: the public face is for users; import from a room's door"
        elif top == "modeguard" and room != package and room not in MAY_IMPORT[package]:
            yield f"{path}:{line}: {package} must not import {room}"


def check_layers(path: PurePosixPath, tree: ast.Module) -> Iterator[str]:
    package, room = path.parts[0], PurePosixPath(path.parts[1]).stem
    layers = [layer.split() for layer in LAYERS.get(package, "").split("|")]
    level = {name: k for k, names in enumerate(layers) for name in names}
    if room not in level:  # the door, and packages without layers
        return
    for line, name in imported_names(path, tree):
        of_package = name.split(".")[2:3] if name.startswith(f"modeguard.{package}.") else []
        for other in (each for each in of_package if each in level and each != room):
            if level[other] <= level[room]:
                yield f"{path}:{line}: {package}/{room} must not import {package}/{other}"


def check_forbidden(path: PurePosixPath, tree: ast.Module) -> Iterator[str]:
    package = path.parts[0]
    for line, name in imported_names(path, tree):
        if module := is_within(name, FORBIDDEN[package]):
            yield f"{path}:{line}: {package} must not use {module}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (module := is_within(dotted(node), FORBIDDEN[package])):
            yield f"{path}:{node.lineno}: {package} must not use {module}"


def check_pickle(path: PurePosixPath, tree: ast.Module) -> Iterator[str]:
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


CHECKS: tuple[Check, ...] = (check_arrows, check_layers, check_forbidden, check_pickle)


def complaints(path: PurePosixPath, tree: ast.Module) -> list[str]:
    """What is wrong with one Python file of a room, by its path in the repository."""
    return [complaint for check in CHECKS for complaint in check(path, tree)]


def machine_paths(path: PurePosixPath, text: str) -> list[str]:
    """Lines of a file that name a place on somebody's machine."""
    return [f"{path}:{k}: {line.strip()}" for k, line in enumerate(text.splitlines(), 1) if MACHINE_PATH.search(line)]


@pytest.mark.parametrize("path", [path for path in PYTHON_FILES if path.parts[0] in ROOMS], ids=str)
def test_the_file_keeps_the_rules(path: PurePosixPath) -> None:
    assert complaints(path, parsed(path)) == []


def test_all_four_packages_are_looked_at() -> None:
    assert {path.parts[0] for path in PYTHON_FILES} >= set(MAY_IMPORT) == set(FORBIDDEN) == set(ROOMS)


@pytest.mark.parametrize("package", LAYERS)
def test_every_room_has_its_layer(package: str) -> None:
    rooms = {module.split(".")[2] for module in MODULES if module.startswith(f"modeguard.{package}.")}
    assert sorted(rooms) == sorted(LAYERS[package].replace("|", " ").split())


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
        ("detector/a.py", "from modeguard.templates_store.bundles import read_bundle", "not import templates_store"),
        ("templates_store/a.py", "import modeguard.offline.recipe", "not import offline"),
        ("offline/a.py", "from modeguard import service", "not import service"),
        ("service/a.py", "def f():\n    import modeguard.offline", "not import offline"),
        ("service/a.py", "importlib.import_module('modeguard.offline.cli.app')", "not import offline"),
        ("detector/inner/a.py", "from ... import offline", "not import offline"),
        ("detector/inner/__init__.py", "from ...offline import console", "not import offline"),
        ("offline/a.py", "from detector import detect", "imported as modeguard.detector"),
        ("offline/a.py", "from modeguard import detect", "public face"),
        ("offline/a.py", "import modeguard", "public face"),
        ("offline/data/a.py", "from modeguard.offline.training import train", "not import offline/training"),
        ("offline/attacks/a.py", "from modeguard.offline import training", "not import offline/training"),
        ("offline/seeds.py", "from modeguard.offline.console import Console", "not import offline/console"),
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
    ],
)
def test_a_broken_rule_is_seen(path: str, line: str, complaint: str) -> None:
    found = complaints(PurePosixPath(path), ast.parse(line))
    assert any(complaint in each for each in found), found


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("service/a.py", "from modeguard.detector import detect"),
        ("service/a.py", "from . import errors"),
        ("service/a.py", "torch.load(file, weights_only=True)"),
        ("service/a.py", "torch.saved()"),
        ("offline/training/a.py", "from modeguard.offline.data import records"),
        ("offline/training/a.py", "from modeguard.offline.training import config"),
    ],
)
def test_what_is_allowed_passes(path: str, line: str) -> None:
    assert complaints(PurePosixPath(path), ast.parse(line)) == []


def test_a_machine_path_is_seen_and_an_address_is_not() -> None:
    path = PurePosixPath("README.md")
    assert machine_paths(path, "see /" + "home/me/data\nand /" + "work/x") != []
    assert machine_paths(path, "https://example.org/" + "home/page and ./" + "work/x") == []
