"""The command line in this process, and a bundle that takes seconds to build."""

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from modeguard.offline.cli import main
from modeguard.offline.console import Console
from modeguard.offline.pipeline import Build
from tests.offline.toy_build import toy_recipe


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command did, its white space made plain in `said`."""

    status: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return " ".join(self.err.split())


Run = Callable[..., Ran]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["modeguard", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        status = ended.value.code
        assert isinstance(status, int)
        return Ran(status, *capsys.readouterr())

    return run


@pytest.fixture(scope="package")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    build = Build(toy_recipe(), tmp_path_factory.mktemp("cli"), Console(io.StringIO(), io.StringIO()))
    build.write_bundle(build.store.root / "bundle")
    return build.store.root / "bundle"
