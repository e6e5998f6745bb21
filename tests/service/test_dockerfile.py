"""The Dockerfile's commands do what they are there for, run here without Docker."""

import json
import re
import subprocess
import sys
import tomllib

import pytest

from modeguard.service.settings import ENV_PREFIX, Settings
from tests.service.conftest import REPOSITORY

INSTRUCTIONS = re.sub(r"\\\n\s*", "", (REPOSITORY / "Dockerfile").read_text())


def command_of(instruction):
    """The command of an instruction in its JSON form, with this Python in place of the image's."""
    (found,) = re.findall(rf"^{instruction}.*?(\[.+\])$", INSTRUCTIONS, re.MULTILINE)
    python, *rest = json.loads(found)
    assert python == "python"
    return [sys.executable, *rest]


def run(command, **environment):
    return subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False).returncode


def test_the_health_check_passes_with_a_server_and_fails_without(server):
    check = command_of("HEALTHCHECK")
    port = server.url.rpartition(":")[2]
    assert run(check, MODEGUARD_PORT=port) == 0
    assert run(check, MODEGUARD_PORT="1") != 0


def test_the_health_check_fails_for_an_answer_other_than_ok(server):
    check = [part.replace("/readyz", "/nowhere") for part in command_of("HEALTHCHECK")]
    assert run(check, MODEGUARD_PORT=server.url.rpartition(":")[2]) == 1


def test_the_server_is_what_is_run_and_not_by_root():
    assert command_of("CMD")[1:] == ["-m", "modeguard.service"]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", INSTRUCTIONS, re.MULTILINE)


def test_its_variables_are_settings():
    names = re.findall(rf"{ENV_PREFIX}(\w+)=", INSTRUCTIONS)
    assert names
    assert {name.lower() for name in names} <= set(Settings.model_fields)


@pytest.mark.parametrize("ignored", ["tests", "artifacts", ".git"])
def test_the_context_has_the_packages_and_no_more(ignored):
    packages = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    assert set(packages["packages"]) < allowed
    assert ignored not in allowed
    for package in packages["packages"]:
        assert f"COPY {package} {package}" in INSTRUCTIONS
