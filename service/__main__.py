"""The server: `python -m modeguard.service`, with its settings in MODEGUARD_* environment variables.

Prints `listening on http://HOST:PORT` to stdout once images can be sent, and logs to stderr. Ends with status 0 on
SIGTERM and SIGINT after the requests at hand are answered, 1 if it cannot serve, 2 if the settings are wrong.
"""

import asyncio
import signal
import socket
import sys
from types import FrameType

import uvicorn

from modeguard.detector import ModeguardError
from modeguard.service.app import create_app
from modeguard.service.logs import configure_logs
from modeguard.service.settings import Settings, SettingsError, load_settings

EXIT_FAILED, EXIT_WRONG_SETTINGS = 1, 2


class AddressError(ModeguardError):
    """An address that cannot be listened on."""


def main() -> int:
    """Serve until a signal comes; returns the exit status."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit_quietly)
    try:
        settings = load_settings()
        configure_logs(settings.log_format, settings.log_level)
        with _listen(settings.host, settings.port) as listener:
            asyncio.run(_serve(settings, listener))
    except ModeguardError as error:
        message = " ".join(str(error).split())
        sys.stderr.write(f"modeguard: {message}\n")
        return EXIT_WRONG_SETTINGS if isinstance(error, SettingsError) else EXIT_FAILED
    return 0


def _exit_quietly(_number: int, _frame: FrameType | None) -> None:
    # while it serves, uvicorn handles signals itself; when it is done it raises them again, for this
    raise SystemExit(0)


def _listen(host: str, port: int) -> socket.socket:
    """A socket that accepts connections.

    Raises:
        AddressError: if the address is taken, not allowed or not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family, backlog=2048) as listener:
            # asyncio sends small answers at once (TCP_NODELAY) only where a socket says that it is TCP
            return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=listener.detach())
    except OSError as error:
        raise AddressError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; stop what uses it, or choose another "
            "address with MODEGUARD_HOST and MODEGUARD_PORT (0 for any free port)"
        ) from error


async def _serve(settings: Settings, listener: socket.socket) -> None:
    """Serve on a listening socket until a signal comes.

    Raises:
        ModeguardError: if the bundle cannot be served.
    """
    refusals: list[ModeguardError] = []

    def on_loaded(error: ModeguardError | None) -> None:
        if error is None:
            sys.stdout.write(f"listening on {_url(listener)}\n")
            sys.stdout.flush()
        else:
            refusals.append(error)
            server.should_exit = True

    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings, on_loaded=on_loaded),
            lifespan="on",
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=settings.shutdown_timeout_s,
        )
    )
    await server.serve(sockets=[listener])
    if refusals:
        raise refusals[0]


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"


if __name__ == "__main__":
    sys.exit(main())
