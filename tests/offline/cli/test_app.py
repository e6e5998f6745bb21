"""The table of commands: what it says is so, and asking for help waits for no package that the help does not need."""

import os
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from modeguard.offline.cli.app import COMMANDS, load_command, main
from tests.offline.cli.conftest import Run

MODULES_OF = "import sys, modeguard.offline.cli as cli\ntry: cli.main()\nfinally: print(*sys.modules, file=sys.stderr)"
HEAVY = {"matplotlib", "sklearn", "scipy"}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_summary_is_the_commands_own_docstring(name: str) -> None:
    module, function = COMMANDS[name].place.split(":")
    assert COMMANDS[name].summary == pkgutil.resolve_name(f"modeguard.offline.cli.{module}:{function}").__doc__


def test_the_help_names_every_command(run: Run) -> None:
    ran = run("--help")
    assert ran.status == 0
    lines = [" ".join(line.strip("│ ").split()) for line in ran.out.splitlines()]
    assert [line.split()[0] for line in lines if line.split()[:1] and line.split()[0] in COMMANDS] == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_help_has_its_summary_and_options(run: Run, name: str) -> None:
    ran = run(name, "--help")
    assert ran.status == 0
    shown = " ".join(ran.out.split())
    assert COMMANDS[name].summary.split()[0] in shown
    for parameter in load_command(name).params:
        assert parameter.opts[0] in shown


@pytest.mark.parametrize(
    ("words", "unwanted"),
    [
        (["--help"], HEAVY | {"torch", "numpy"}),
        (["serve", "--help"], HEAVY | {"torch", "numpy"}),
        (["detect", "--help"], HEAVY),
    ],
    ids=["--help", "serve --help", "detect --help"],
)
def test_help_imports_nothing_that_it_does_not_need(words: list[str], unwanted: set[str]) -> None:
    command = [sys.executable, "-P", "-c", MODULES_OF, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Usage" in done.stdout
    assert unwanted & set(done.stderr.split()) == set()


def test_the_installed_command_is_the_door() -> None:
    pyproject = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))
    assert pkgutil.resolve_name(pyproject["project"]["scripts"]["modeguard"]) is main


def test_wrong_usage_is_status_2(run: Run) -> None:
    wrong = run("build", "digits", "--bogus")
    assert (wrong.status, wrong.out) == (2, "")
    assert "No such option" in wrong.said
    unknown = run("buidl")
    assert unknown.status == 2
    assert "Did you mean 'build'?" in unknown.said
    assert run().status == 2


def test_threads_are_for_this_process_and_for_the_server(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    numbers: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", numbers.append)
    monkeypatch.setenv("MODEGUARD_TORCH_THREADS", "7")
    assert run("--threads", 3, "detect", tmp_path / "a.png", "--bundle", tmp_path).status == 1
    assert (numbers, os.environ["MODEGUARD_TORCH_THREADS"]) == ([3], "3")


def test_an_error_that_is_not_the_users_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("modeguard.offline.cli.recipe_commands.read_recipe", broken)
    monkeypatch.setattr(sys, "argv", ["modeguard", "fit", "digits"])
    with pytest.raises(ZeroDivisionError):
        main()
