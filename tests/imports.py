"""What the Python files of the repository import, by parsing them."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import PurePosixPath

from tests.repository import PACKAGES, ROOMS, ROOT, repository_files

__all__ = [
    "MODULES",
    "PYTHON_FILES",
    "dotted",
    "imported_names",
    "is_door",
    "module_of",
    "parsed",
    "resolved",
    "shown_names",
]

PYTHON_FILES = [path for path in repository_files() if path.suffix == ".py"]


def module_of(path: PurePosixPath) -> str:
    """`modeguard.detector.rows` of detector/rows.py, `modeguard.detector` of its door, `tests.imports` of this file."""
    parts = path.with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(("modeguard", *parts) if path.parts[0] in ROOMS else parts)


MODULES = {module_of(path): path for path in PYTHON_FILES if path.parts[0] in PACKAGES}
"""The modules that are installed, with their files."""


def is_door(module: str) -> bool:
    """Whether an installed module is a folder's `__init__`."""
    return MODULES[module].name == "__init__.py"


def parsed(path: PurePosixPath) -> ast.Module:
    """A file of the repository."""
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def imported_names(path: PurePosixPath, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything that a file imports, by a statement or by a constant string."""
    package = module_of(path.parent / "__init__.py").split(".")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
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


@cache
def shown_names(module: str) -> frozenset[str] | None:
    """What `__all__` of an installed module holds; None if it has none."""
    for node in parsed(MODULES[module]).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if [dotted(target) for target in targets] == ["__all__"]:
                return frozenset(ast.literal_eval(node.value))
    return None


def resolved(name: str) -> str:
    """The installed module that an imported name is, or is of; empty for what is not installed from here.

    What a door shows is the door's, also where a module behind it has the same name.
    """
    door, _, last = name.rpartition(".")
    if door in MODULES and is_door(door) and last in (shown_names(door) or ()):
        return door
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name
