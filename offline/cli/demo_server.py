"""The real server in a process of its own, for as long as somebody needs it."""

import os
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx

from modeguard.detector import ModeguardError
from modeguard.offline.cli.serve import SERVER

__all__ = ["ServerError", "running_server"]

Lines = queue.Queue[str | None]

_READY = "listening on "
_PREFIX = "MODEGUARD_"
_LOG_LINES = 15


class ServerError(ModeguardError):
    """The server did not start, answer or stop as it should; the message ends with what it logged."""


@contextmanager
def running_server(
    bundle: Path,
    settings: Mapping[str, str] | None = None,
    *,
    start_timeout_s: float = 120.0,
    stop_timeout_s: float = 40.0,
) -> Iterator[str]:
    """Serve a bundle on a free loopback port; yields the server's URL.

    The server is stopped on leaving, however that happens: asked with SIGTERM, killed if it takes too long. Settings
    of a server in this process's environment are not handed on.

    Args:
        bundle: directory of a bundle.
        settings: more settings of the server, such as {"dtype": "float32"}.
        start_timeout_s: how long it may take until images can be sent.
        stop_timeout_s: how long it may take to stop.

    Raises:
        ServerError: if the server does not start, stops answering, does not stop, or ends with another status than 0.
    """
    own = {"bundle": str(bundle.resolve()), "host": "127.0.0.1", "port": "0"}
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(  # noqa: S603 - nothing of a user's in it
            SERVER,
            env=_environment(own | dict(settings or {})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for this process, which then stops the server
        ) as process,
        _lines_of(process) as lines,
    ):
        try:
            yield _url_of(process, lines, log, start_timeout_s)
        except httpx.TransportError as error:
            _stop(process, stop_timeout_s)
            raise ServerError(f"the server does not answer ({error}); {_said(log)}") from error
        except BaseException:
            _stop(process, stop_timeout_s)
            raise
        status = _stop(process, stop_timeout_s)
        if status is None:
            raise ServerError(f"the server had not stopped {stop_timeout_s:g} s after SIGTERM; {_said(log)}")
        if status != 0:
            raise ServerError(f"the server ended with status {status}, 0 was expected; {_said(log)}")


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_PREFIX)}
    return environment | {f"{_PREFIX}{name.upper()}": value for name, value in settings.items()}


@contextmanager
def _lines_of(process: subprocess.Popen[bytes]) -> Iterator[Lines]:
    """The lines of its standard output, read until it ends so that it never blocks; None is the end."""
    lines: Lines = queue.Queue()
    reader = threading.Thread(target=_pass_lines, args=(process, lines), daemon=True)
    reader.start()
    try:
        yield lines
    finally:
        reader.join()


def _pass_lines(process: subprocess.Popen[bytes], lines: Lines) -> None:
    for line in process.stdout or ():
        lines.put(line.decode(errors="replace").strip())
    lines.put(None)


def _url_of(process: subprocess.Popen[bytes], lines: Lines, log: IO[bytes], timeout_s: float) -> str:
    """Where the server says it listens, once it says so."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise ServerError(f"the server was not ready after {timeout_s:g} s; {_said(log)}") from None
        if line is None:
            raise ServerError(f"the server did not start, it ended with status {process.wait()}; {_said(log)}")
        if line.startswith(_READY):
            return line.removeprefix(_READY)


def _stop(process: subprocess.Popen[bytes], timeout_s: float) -> int | None:
    """Ask the server to stop, and kill it if it does not; its exit status, None if it was killed."""
    process.terminate()
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:  # it took too long, or a second Ctrl-C came
            process.kill()
            process.wait()


def _said(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").splitlines()[-_LOG_LINES:]
    return "it logged nothing" if not lines else "\n  ".join(["its last log lines:", *lines])
