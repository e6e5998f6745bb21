"""What to install where a package is missing that only building needs."""

from collections.abc import Iterator
from contextlib import contextmanager

from modeguard.detector import ModeguardError

__all__ = ["OF_BUILD", "MissingExtraError", "extras_named"]

OF_BUILD = frozenset({"httpx", "jinja2", "markupsafe", "matplotlib", "sklearn"})
"""What is imported of the packages of pyproject.toml's extra `build`."""


class MissingExtraError(ModeguardError):
    """A package of an extra that was not installed."""


@contextmanager
def extras_named() -> Iterator[None]:
    """Where a package of an extra cannot be imported, say which extra to install.

    Goes around whatever may import: the loading of a command's module, and its run.

    Raises:
        MissingExtraError: instead of the ModuleNotFoundError of such a package; that of any other goes through.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in OF_BUILD:
            raise
        raise MissingExtraError(
            f"this needs the package {package}, which is not installed: pip install 'modeguard[build]'"
        ) from error
