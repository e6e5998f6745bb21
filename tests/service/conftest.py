"""A toy bundle, the application on it, and clients."""

import logging
import os
import pkgutil
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
import structlog

from modeguard.service.app import create_app
from modeguard.service.settings import Settings
from modeguard.templates_store.bundles import Bundle, read_bundle
from tests.service.toy import FACTORY, write_toy_bundle

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 120  # until a test gives up on a server; nothing is asserted about time
MAX_BODY_BYTES = 1_000_000
PNG = {"Content-Type": "image/png"}
LIMITS = {"max_pixels": 10_000, "max_images": 3, "max_body_bytes": 50_000}


class MakeSettings(Protocol):
    def __call__(self, **changes: object) -> Settings: ...


class MakeClient(Protocol):
    def __call__(self, the_bundle: Bundle | None = ..., /, **changes: object) -> httpx.AsyncClient: ...


def problem_of(response: httpx.Response, status: int, slug: str | None) -> dict[str, Any]:
    """Check that a response is a problem of that kind, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in response.text
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert problem["type"] == (f"urn:modeguard:problem:{slug}" if slug else "about:blank")
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == response.headers["x-request-id"]
    return problem


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("service") / "bundle"
    write_toy_bundle(path)
    return path


@pytest.fixture(scope="session")
def bundle(bundle_path: Path) -> Bundle:
    return read_bundle(bundle_path, dtype="float32", allowed_factories=(FACTORY,))


@pytest.fixture
def make_settings(bundle_path: Path) -> MakeSettings:
    def make(**changes: object) -> Settings:
        chosen = {"bundle": bundle_path, "dtype": "float32", "allowed_factories": (FACTORY,)} | changes
        return Settings.model_validate(chosen)

    return make


@pytest.fixture
def make_client(bundle: Bundle, make_settings: MakeSettings) -> MakeClient:
    """An HTTP client of an application in this process."""

    def make(the_bundle: Bundle | None = bundle, /, **changes: object) -> httpx.AsyncClient:
        app = create_app(make_settings(**changes), the_bundle)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://service")

    return make


class Gate:
    """Holds whoever calls it until it is opened, and knows on which thread that was."""

    def __init__(self, then: Callable[..., Any]) -> None:
        self.entered, self.opened, self._then = threading.Event(), threading.Event(), then
        self.thread_names: list[str] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.thread_names.append(threading.current_thread().name)
        self.entered.set()
        assert self.opened.wait(60)
        return self._then(*args, **kwargs)


def put_in_place_of(name: str, wrap: Callable[[Callable[..., Any]], Any], patch: pytest.MonkeyPatch) -> Any:
    """Put what `wrap` makes of a function in its place.

    Args:
        name: of the function, as "package.module.function".
        wrap: given the function.
        patch: undoes it.
    """
    module, _, function = name.rpartition(".")
    wrapped = wrap(pkgutil.resolve_name(f"{module}:{function}"))
    patch.setattr(name, wrapped)
    return wrapped


class Server:
    """A real server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url
        self.stderr = ""

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        _, self.stderr = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode


def server_environment(bundle: Path, **settings: object) -> dict[str, str]:
    """The environment of a server, without what the machine's own environment says of it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MODEGUARD_")}
    chosen = {
        "bundle": bundle,
        "port": 0,
        "dtype": "float32",
        "allowed_factories": FACTORY,
        "torch_threads": 1,
    } | settings
    return inherited | {f"MODEGUARD_{name.upper()}": str(value) for name, value in chosen.items()}


@contextmanager
def running_server(environment: dict[str, str]) -> Iterator[Server]:
    """Start `python -m modeguard.service` and wait until it listens."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "modeguard.service"],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        readable, _, _ = select.select([process.stdout], [], [], PATIENCE_S)
        line = process.stdout.readline() if readable else ""
        match = re.fullmatch(r"listening on (http://\S+)\n", line)
        if match is None:
            process.kill()
            pytest.fail(f"no server: {line!r} {process.communicate()[1]}")
        yield Server(process, match[1])
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def refused_start(environment: dict[str, str]) -> tuple[int, str, str]:
    """Run `python -m modeguard.service` where it cannot start; status, stdout, stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "modeguard.service"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="session")
def server(bundle_path: Path) -> Iterator[Server]:
    """One server for all tests that only ask it."""
    with running_server(server_environment(bundle_path, max_body_bytes=MAX_BODY_BYTES)) as running:
        yield running
        assert running.stop(signal.SIGINT) == 0
        assert "Traceback" not in running.stderr


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
