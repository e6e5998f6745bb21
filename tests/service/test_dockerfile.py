"""The Dockerfile's commands do what they are there for, run here without Docker."""

import json
import re
import subprocess
import sys

import pytest

from modeguard.service.settings import ENV_PREFIX, Settings
from tests.repository import PACKAGES, ROOT
from tests.service.conftest import Server

INSTRUCTIONS = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
OF_THE_PROJECT = ("pyproject.toml", "setup.py", "requirements.lock", "README.md", "LICENSE")


def command_of(instruction: str) -> list[str]:
    """The command of an instruction in its JSON form, with this Python in place of the image's."""
    (found,) = re.findall(rf"^{instruction}.*?(\[.+\])$", INSTRUCTIONS, re.MULTILINE)
    python, *rest = json.loads(found)
    assert python == "python"
    return [sys.executable, *rest]


def run(command: list[str], **environment: str) -> int:
    """The exit status of a command in an environment that has these variables only."""
    return subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False).returncode


def test_the_health_check_passes_with_a_server_and_fails_without(server: Server) -> None:
    check = command_of("HEALTHCHECK")
    port = server.url.rpartition(":")[2]
    assert run(check, MODEGUARD_PORT=port) == 0
    assert run(check, MODEGUARD_PORT="1") != 0


def test_the_health_check_fails_for_an_answer_other_than_ok(server: Server) -> None:
    check = [part.replace("/readyz", "/nowhere") for part in command_of("HEALTHCHECK")]
    assert run(check, MODEGUARD_PORT=server.url.rpartition(":")[2]) == 1


def test_the_server_is_what_is_run_and_not_by_root() -> None:
    assert command_of("CMD")[1:] == ["-m", "modeguard.service"]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", INSTRUCTIONS, re.MULTILINE)


def test_its_variables_are_settings() -> None:
    names = re.findall(rf"{ENV_PREFIX}(\w+)=", INSTRUCTIONS)
    assert names
    assert {name.lower() for name in names} <= set(Settings.model_fields)


def test_the_context_is_what_the_image_is_made_of_and_no_more() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    assert {line[1:] for line in lines if line.startswith("!")} == {*OF_THE_PROJECT, *PACKAGES}
    copied = re.findall(r"^COPY (?!--from)(.+) (\S+)$", INSTRUCTIONS, re.MULTILINE)
    assert {name for names, _ in copied for name in names.split()} == {*OF_THE_PROJECT, *PACKAGES}
    assert {(package, package) for package in PACKAGES} <= set(copied)


def test_what_is_installed_is_locked_and_without_extras() -> None:
    installed = re.findall(r"pip install (.*?)(?= &&|$)", INSTRUCTIONS, re.MULTILINE)
    assert [command for command in installed if "--constraint requirements.lock" not in command] == []
    assert installed[-1].split()[-1] == "."


@pytest.mark.parametrize(("index", "options"), [("", []), ("URL", ["--index-url", "URL", "--no-deps"])])
def test_torch_comes_from_the_index_that_is_named(index: str, options: list[str]) -> None:
    (command,) = re.findall(r"pip install (.*torch torchvision)$", INSTRUCTIONS, re.MULTILINE)
    shell = ["sh", "-c", f"printf '%s\\n' {command}"]
    words = subprocess.run(shell, env={"TORCH_INDEX": index}, capture_output=True, text=True, check=True).stdout.split()
    assert words == [*options, "--constraint", "requirements.lock", "torch", "torchvision"]
