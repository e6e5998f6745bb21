"""What is installed: the wheel's files, the extras, and the lock file."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from modeguard.offline.cli import OF_BUILD
from tests.repository import PACKAGES, ROOMS, ROOT, repository_files
from tests.service.toy import FACTORY, RED, image_file, write_toy_bundle

PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
PINS = [Requirement(line) for line in LOCK if not line.startswith("#")]
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]
OTHERS_OF_BUILD = {"scipy", "joblib", "foolbox", "timm"}  # what those packages bring, and what tests alone need


# the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the repository's files, built away from the repository because building leaves files."""
    sources, wheels = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheels")
    for path in repository_files():
        if len(path.parts) == 1 or path.parts[0] in (*PACKAGES, "tests", "benchmarks"):
            (sources / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, sources / path)
    code = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(wheels)], cwd=sources, capture_output=True, check=True)
    (built,) = wheels.iterdir()
    return built


def test_the_wheel_has_the_packages_files_and_no_others(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    about = {name for name in names if name.startswith(f"modeguard-{PYPROJECT['project']['version']}.dist-info/")}
    installed = [path for path in repository_files() if path.parts[0] in PACKAGES]
    assert names - about == {f"modeguard/{path}" if path.parts[0] in ROOMS else str(path) for path in installed}
    assert {Path(name).suffix for name in names - about} >= {".py", ".toml", ".jinja", ".typed"}
    assert any(name.endswith("licenses/LICENSE") for name in about)


# the extras


def without_extras(code: str, *arguments: str, extras: frozenset[str] = OF_BUILD) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter that cannot import what extras bring."""
    missing = sorted(extras | OTHERS_OF_BUILD)
    block = f"import sys; sys.modules.update(dict.fromkeys({missing}))\n"  # None there: not to be imported
    command = [sys.executable, "-c", block + code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "bundle"
    write_toy_bundle(path)
    return path


@pytest.fixture
def red(tmp_path: Path) -> Path:
    """An image file that the toy bundle calls natural."""
    path = tmp_path / "red.png"
    path.write_bytes(image_file(RED))
    return path


JUDGE = f"""
import pathlib
import modeguard.service.__main__, modeguard.service.app
from modeguard.offline.cli.detect import judge_file
from modeguard.templates_store.bundles import read_bundle
bundle = read_bundle(pathlib.Path(sys.argv[1]), allowed_factories=({FACTORY!r},))
print(bundle.manifest.class_names[judge_file(bundle, pathlib.Path(sys.argv[2])).outcome.predicted])
"""


def test_detecting_and_serving_need_no_extra(bundle: Path, red: Path) -> None:
    done = without_extras(JUDGE, str(bundle), str(red))
    assert (done.stdout, done.returncode) == ("red\n", 0), done.stderr


def test_every_package_of_the_extra_is_known_by_what_is_imported() -> None:
    distributions = packages_distributions()
    assert {canonicalize_name(distributions[name][0]) for name in OF_BUILD} == {
        canonicalize_name(Requirement(line).name) for line in EXTRAS["build"]
    }
    assert Requirement(EXTRAS["all"][0]).extras == set(EXTRAS) - {"all"}


COMMAND = "from modeguard.offline.cli import main; main()"


def test_a_missing_package_is_told_with_its_extra() -> None:
    done = without_extras(COMMAND, "build", "digits")
    said = r"error: this needs the package \w+, which is not installed: pip install 'modeguard\[build\]'\n"
    assert re.fullmatch(said, done.stderr)
    assert (done.stdout, done.returncode) == ("", 1)


def test_a_missing_module_that_no_extra_brings_is_an_error_of_its_own() -> None:
    done = without_extras(COMMAND, "detect", "--help", extras=frozenset({"safetensors"}))
    assert done.stderr.splitlines()[-1].startswith("ModuleNotFoundError")


# the lock file


def test_the_lock_holds_versions_and_nothing_of_where_they_are_from() -> None:
    lines = [line for line in LOCK if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; [^@#:]+)?", line)] == []


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_lock_has_one_version_of_all_that_is_asked_for(python: str) -> None:
    machine = {name: str(value) for name, value in default_environment().items()} | {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
    }
    pins = [pin for pin in PINS if pin.marker is None or pin.marker.evaluate(machine)]
    versions = {pin.name: str(pin.specifier).removeprefix("==") for pin in pins}
    assert len(versions) == len(pins)
    asked = [PYPROJECT["project"]["dependencies"], *PYPROJECT["dependency-groups"].values(), *EXTRAS.values()]
    for requirement in (Requirement(line) for lines in asked for line in lines):
        if requirement.name != "modeguard":
            assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement
