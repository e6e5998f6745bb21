"""What Ctrl-C means for work that keeps what it has finished."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from modeguard.offline.console import Console

__all__ = ["resumable"]


@contextmanager
def resumable() -> Iterator[None]:
    """Work that the same command goes on with: Ctrl-C says so, and ends with status 130."""
    try:
        yield
    except KeyboardInterrupt:
        Console().error("stopped; what was finished is kept, and the same command goes on from there")
        raise typer.Exit(130) from None
