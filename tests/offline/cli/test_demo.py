"""The demo: the whole way with the real server, and a server that misbehaves is found out and never left behind."""

import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from modeguard.detector import Sliced, to_pixels
from modeguard.offline.cli import demo_server
from modeguard.offline.cli.demo import ask, run_demo, samples_of
from modeguard.offline.cli.demo_server import ServerError, running_server
from modeguard.offline.console import Console
from modeguard.offline.pipeline import Build
from modeguard.offline.recipe import Recipe
from modeguard.templates_store.bundles import read_bundle
from tests.offline.toy_build import toy_recipe

PATIENCE_S = 120.0
URL = "http://127.0.0.1:9"
SERVE = f"import time; print('listening on {URL}', flush=True); time.sleep(600)"

Processes = list["subprocess.Popen[bytes]"]
Pretend = Callable[[str], Processes]


def run(artifacts: Path, recipe: Recipe) -> tuple[str, str]:
    """Everything the demo says: results, and what goes on."""
    results, progress = io.StringIO(), io.StringIO()
    run_demo(artifacts, Console(results, progress), recipe=recipe)
    return results.getvalue(), progress.getvalue()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory to stand in, with packages of our names in it that must not be run."""
    home = tmp_path_factory.mktemp("home")
    for name in ("modeguard", "service"):
        (home / name).mkdir()
        (home / name / "__init__.py").write_text("raise SystemExit('the wrong one')")
    return home


@pytest.fixture(scope="module")
def said(home: Path) -> tuple[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("MODEGUARD_PORT", "not a port")
        patch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        return run(home.relative_to(home) / "artifacts", toy_recipe())


@pytest.fixture
def build(home: Path, said: tuple[str, str]) -> Build:
    return Build(toy_recipe(), home / "artifacts", Console(io.StringIO(), io.StringIO()))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Processes:
    """The processes that the code under test starts."""
    started: Processes = []

    class Recorded(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    return started


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """Put a script in the server's place; gives the processes that are started."""

    def pretend(script: str) -> Processes:
        pretended: Processes = []

        class Pretended(subprocess.Popen[bytes]):
            def __init__(self, _: object, **options: Any) -> None:
                super().__init__([sys.executable, "-c", script], **options)
                pretended.append(self)

        monkeypatch.setattr(subprocess, "Popen", Pretended)
        return pretended

    return pretend


def test_the_whole_way(home: Path, said: tuple[str, str], build: Build) -> None:
    results, progress = said
    digest = read_bundle(home / "artifacts" / "toy" / "bundle").digest
    samples = samples_of(build)
    for sample in samples:
        (row,) = [line for line in results.splitlines() if f"│ {sample.name} " in line]
        cells = [cell.strip() for cell in row.strip("│").split("│")]
        assert cells[1] == build.dataset.class_names[sample.label]
        assert (cells[1] != cells[2]) == sample.is_adversarial
        assert 0 <= float(cells[3]) <= 1
        assert (float(cells[4]) <= build.fitted.detector.config.target_fpr) == (cells[5] == "adversarial")
    assert f"(digest {digest})" in results
    assert "mean AUROC" in results
    report = home / "artifacts" / "toy" / "report.html"
    assert f"report: {report.resolve()}" in results
    assert digest in report.read_text(encoding="utf-8")
    (url,) = re.findall(r"on (http://127\.0\.0\.1:\d+),", progress)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/livez", trust_env=False)


def test_a_second_run_builds_nothing_again(home: Path, said: tuple[str, str]) -> None:
    bundle = home / "artifacts" / "toy" / "bundle"
    digest, n_threads = read_bundle(bundle).digest, torch.get_num_threads()
    results, progress = run(home / "artifacts", toy_recipe())
    assert torch.get_num_threads() == n_threads
    assert "attacking" in said[1]
    assert not re.search("training|attacking|loss curves|choosing templates", progress)
    assert results.replace(str(home.resolve()), "") == said[0].replace(str(home.resolve()), "")
    assert read_bundle(bundle).digest == digest


def test_samples_are_test_images_that_fool_as_bytes(build: Build) -> None:
    samples = samples_of(build, n_natural=2, n_per_attack=3)
    roles, test = build.roles.value, build.dataset.test
    natural = test.images[roles.sources[build.folds.is_test]]
    assert [sample.name for sample in samples] == [
        "natural 1",
        "natural 2",
        *(f"{a} {k}" for a in ("fgsm", "bim") for k in (1, 2, 3)),
    ]
    for sample in samples:
        assert sample.image.dtype == torch.uint8
        predicted = Sliced(build.exact_classifier)(to_pixels(sample.image)[None]).argmax()
        assert (int(predicted) != sample.label) == sample.is_adversarial
        nearest = (natural.int() - sample.image.int()).abs().flatten(1).amax(dim=1).min()
        assert nearest <= (52 if sample.is_adversarial else 0)  # an epsilon of 0.2, rounded


def test_a_server_that_cannot_start_says_why(tmp_path: Path, started: Processes) -> None:
    complaint = r"did not start, it ended with status 1; (?s:.*)no such directory"
    with pytest.raises(ServerError, match=complaint), running_server(tmp_path / "nothing", start_timeout_s=PATIENCE_S):
        pytest.fail("it started")
    assert started[0].returncode == 1


def test_the_server_refuses_what_is_no_image_and_is_stopped(
    home: Path, started: Processes, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sample, *_) = samples_of(build)
    monkeypatch.setattr("modeguard.offline.cli.demo.png_of", lambda _: b"no image")
    bundle = home / "artifacts" / "toy" / "bundle"
    with pytest.raises(ServerError, match="refused natural 1 with 422"), running_server(bundle) as url:
        ask(url, [sample])
    assert started[0].returncode == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, httpx.ConnectError("gone")])
def test_the_server_is_stopped_when_the_work_fails(
    tmp_path: Path, pretend: Pretend, error: BaseException | type[BaseException]
) -> None:
    pretended = pretend("import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0));" + SERVE)
    expected: Any = ServerError if isinstance(error, httpx.ConnectError) else error
    with pytest.raises(expected), running_server(tmp_path, start_timeout_s=PATIENCE_S):
        raise error
    assert pretended[0].returncode == 0


@pytest.mark.parametrize(
    ("script", "timeout_s", "complaint"),
    [
        (SERVE, PATIENCE_S, "ended with status -15, 0 was expected; it logged nothing"),
        (
            "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
            "print('busy', file=sys.stderr, flush=True);" + SERVE,
            0.5,
            "had not stopped 0.5 s after SIGTERM; its last log lines:\n  busy",
        ),
    ],
)
def test_a_server_that_does_not_stop_well_is_an_error(
    tmp_path: Path, pretend: Pretend, script: str, timeout_s: float, complaint: str
) -> None:
    pretended = pretend(script)
    server = running_server(tmp_path, start_timeout_s=PATIENCE_S, stop_timeout_s=timeout_s)
    with pytest.raises(ServerError, match=re.escape(complaint)), server:
        assert pretended[0].poll() is None
    assert pretended[0].returncode is not None


def test_a_server_that_never_is_ready_is_given_up(tmp_path: Path, pretend: Pretend) -> None:
    pretended = pretend("print('hello', flush=True); import time; time.sleep(600)")
    complaint = r"was not ready after 0\.5 s"
    with pytest.raises(ServerError, match=complaint), running_server(tmp_path, start_timeout_s=0.5):
        pytest.fail("it was ready")
    assert pretended[0].returncode is not None


def test_the_server_gets_the_environment_but_no_settings_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEGUARD_DEVICE", "cuda:7")
    monkeypatch.setenv("PYTHONPATH", "mine")
    environment = demo_server._environment({"dtype": "float32"})
    assert {name: value for name, value in environment.items() if name.startswith("MODEGUARD_")} == {
        "MODEGUARD_DTYPE": "float32"
    }
    assert environment["PYTHONPATH"] == "mine"
