"""`import modeguard`: the names that judge images are those of the rooms, and none is imported before it is used."""

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import modeguard
from modeguard.detector import Detections, Detector, Verdict, detect, to_pixels
from modeguard.templates_store.bundles import read_bundle
from modeguard.templates_store.images import decode_image

ROOT = Path(__file__).parents[1]


def test_the_names_are_those_of_the_rooms() -> None:
    expected = {
        "Detections": Detections,
        "Detector": Detector,
        "Verdict": Verdict,
        "__version__": importlib.metadata.version("modeguard"),
        "decode_image": decode_image,
        "detect": detect,
        "read_bundle": read_bundle,
        "to_pixels": to_pixels,
    }
    assert {name: getattr(modeguard, name) for name in modeguard.__all__} == expected
    assert set(expected) <= set(dir(modeguard))


def test_an_unknown_name_is_told_as_of_any_module() -> None:
    assert not hasattr(modeguard, "detekt")


def test_types_and_values_come_from_the_same_places() -> None:
    """The imports that a type checker reads are those that the table of places does."""
    tree = ast.parse((ROOT / "modeguard" / "__init__.py").read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    seen = {alias.name: node.module for node in imports for alias in node.names if str(node.module).startswith("mode")}
    assert seen == dict(modeguard._HOMES)


def test_importing_it_costs_nothing() -> None:
    code = "import sys; before = set(sys.modules); import modeguard; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout.split()
    assert len([name for name in done.stdout.split() if name.startswith("modeguard")]) == 1


def test_it_is_typed() -> None:
    assert (ROOT / "modeguard" / "py.typed").is_file()
