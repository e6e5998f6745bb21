"""Starting the server: ours, with the user's environment, whatever lies where the user stands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.offline.cli.conftest import Run

MODEGUARD = [sys.executable, "-P", "-c", "from modeguard.offline.cli import main; main()"]
"""As the installed script: it looks for packages in its own directory, not where the user stands."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """Words and environment of what takes this process's place."""
    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda _, words, environment: started.append((words, environment)))
    return started


@pytest.mark.parametrize("places", [None, "mine", f"mine{os.pathsep}other"])
def test_the_server_gets_the_users_environment_and_what_is_asked_for(
    run: Run,
    started: list[tuple[list[str], dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    places: str | None,
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if places is not None:
        monkeypatch.setenv("PYTHONPATH", places)
    monkeypatch.setenv("MODEGUARD_HOST", "::1")
    before = dict(os.environ)
    assert run("serve", "--bundle", tmp_path, "--port", 0).status == 0
    ((words, environment),) = started
    assert words == [sys.executable, "-P", "-m", "modeguard.service"]
    assert environment == before | {"MODEGUARD_BUNDLE": str(tmp_path), "MODEGUARD_PORT": "0"}
    run("serve", "--bundle", tmp_path, "--host", "0.0.0.0", "--trust-program", "a" * 64, "--trust-program", "b" * 64)
    asked = {"MODEGUARD_HOST": "0.0.0.0", "MODEGUARD_TRUSTED_PROGRAMS": f"{'a' * 64},{'b' * 64}"}
    assert started[1][1] == before | {"MODEGUARD_BUNDLE": str(tmp_path)} | asked


def test_no_code_from_where_the_user_stands_is_run(tmp_path: Path) -> None:
    """Packages named like ours, a package of the user's on PYTHONPATH: the server that starts is ours all the same."""
    for name in ("modeguard", "modeguard/service", "service", "detector"):
        (tmp_path / "here" / name).mkdir(parents=True)
        (tmp_path / "here" / name / "__init__.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "sitecustomize.py").write_text("import sys; print('mine is there', file=sys.stderr)")
    done = subprocess.run(
        [*MODEGUARD, "serve", "--bundle", "nothing", "--port", "0"],
        cwd=tmp_path / "here",
        env=os.environ | {"PYTHONPATH": str(tmp_path / "mine")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.count("mine is there") == 2  # once for the command, once for the server
    assert "modeguard: nothing is not a bundle" in done.stderr
    assert done.returncode == 1
