"""Doors: from outside a folder only its `__init__` is imported, a name has one door, and rooms stand in no circle."""

import ast
from collections import Counter
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePosixPath

import pytest

from tests.imports import MODULES, PYTHON_FILES, imported_names, is_door, module_of, parsed, resolved, shown_names

FACE = "modeguard"  # shows the public names again, in one place
DOORS = [module for module in MODULES if is_door(module) and module != FACE]


def past_the_door(path: PurePosixPath, tree: ast.Module) -> Iterator[str]:
    """Imports of a module from outside its folder; a test counts as inside of what it mirrors."""
    importer = module_of(path)
    inside = f"{FACE}.{importer.removeprefix('tests.')}" if path.parts[0] == "tests" else importer
    for line, name in imported_names(path, tree):
        module = resolved(name)
        folder = module.rpartition(".")[0]
        if module and not is_door(module) and not f"{inside}.".startswith(f"{folder}."):
            yield f"{path}:{line}: {name} is behind the door {folder}"


def room_of(module: str) -> str:
    """What must not be in a circle: a folder inside a package, or a file at the package's top, such as its door."""
    _, *parts = module.split(".")
    return ".".join(parts[:2]) if len(parts) > 1 or not parts else f"{parts[0]}.__init__"


def circle(arrows: Iterable[tuple[str, str]]) -> list[str]:
    """Rooms that import each other in a ring, each the next; empty if there are none."""
    graph = TopologicalSorter[str]()
    for importer, imported in arrows:
        if importer != imported:
            graph.add(imported, importer)
    try:
        graph.prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("path", PYTHON_FILES, ids=str)
def test_only_doors_are_imported_from_outside(path: PurePosixPath) -> None:
    assert list(past_the_door(path, parsed(path))) == []


@pytest.mark.parametrize("door", DOORS)
def test_a_door_says_what_lives_there_and_what_it_shows(door: str) -> None:
    assert len((ast.get_docstring(parsed(MODULES[door])) or "").split()) > 3
    assert shown_names(door) is not None


def test_a_name_has_one_door() -> None:
    shown = Counter(name for door in DOORS for name in shown_names(door) or ())
    assert [name for name, n_doors in shown.items() if n_doors > 1] == []


def test_no_rooms_import_each_other_in_a_circle() -> None:
    names = [(module, name) for module, path in MODULES.items() for _, name in imported_names(path, parsed(path))]
    assert circle((room_of(module), room_of(resolved(name))) for module, name in names if resolved(name)) == []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("service/app.py", "from modeguard.detector.rows import Sliced"),
        ("service/app.py", "from modeguard.detector import rows"),
        ("service/app.py", "import modeguard.detector.rows as rows"),
        ("service/api/routes.py", "from ..http.body import read_body"),
        ("service/__init__.py", "from modeguard.service.http.body import read_body"),
        ("benchmarks/tables.py", "from modeguard.offline.seeds import seed"),
        ("tests/test_docs.py", "from modeguard.detector.rows import Sliced"),
        ("tests/service/test_app.py", "from modeguard.detector.rows import Sliced"),
    ],
)
def test_what_goes_past_a_door_is_seen(path: str, line: str) -> None:
    assert len(list(past_the_door(PurePosixPath(path), ast.parse(line)))) == 1


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("service/app.py", "from modeguard.detector import detect"),
        ("service/app.py", "import torch.nn"),
        ("service/app.py", "from modeguard.templates_store.images import decode_image"),
        ("service/__init__.py", "from modeguard.service.app import create_app"),
        ("detector/questions/curves.py", "from modeguard.detector.rows import Sliced"),
        ("detector/questions/curves.py", "from . import noise"),
        ("tests/detector/test_rows.py", "from modeguard.detector.rows import Sliced"),
        ("tests/detector/questions/test_curves.py", "from modeguard.detector.questions.curves import mean"),
    ],
)
def test_what_goes_through_a_door_or_stays_inside_passes(path: str, line: str) -> None:
    assert list(past_the_door(PurePosixPath(path), ast.parse(line))) == []


def test_a_circle_is_seen() -> None:
    assert set(circle([("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("d", "d")])) == {"a", "b", "c"}
    assert circle([("a", "b"), ("b", "c"), ("a", "c")]) == []
