"""The method over HTTP: decode, admit, detect, answer. Start it with `python -m modeguard.service`.

At the top are the process (`__main__`), the application put together (`app`), the settings and the logs. Its rooms:

    http/        what every API over HTTP shares: bodies, multipart, the envelope of a request, problems
    inference/   bundles in memory, decoding, judging and the threads that do it; knows nothing of HTTP
    api/         one file an API: requests in, answers out

No maths lives here, and nothing of `offline`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modeguard.service.app import create_app
    from modeguard.service.settings import ENV_PREFIX, Settings

__all__ = ["ENV_PREFIX", "Settings", "create_app"]

_HOMES = {"ENV_PREFIX": "settings", "Settings": "settings", "create_app": "app"}


def __getattr__(name: str) -> object:
    """What this door shows, imported when it is asked for, so that a room behind it does not bring the others along."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
