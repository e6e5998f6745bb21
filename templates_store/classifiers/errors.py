"""Errors of this room, and the clause in them that proposes a known name."""

import difflib
from collections.abc import Iterable

from modeguard.detector import ModeguardError

__all__ = ["ClassifierError", "DeviceError", "nearest_names"]


class ClassifierError(ModeguardError, ValueError):
    """A classifier that cannot be built or loaded, or that is not what the method needs."""


class DeviceError(ModeguardError, ValueError):
    """A device that this machine does not have."""


def nearest_names(name: str, known: Iterable[str], *, n: int = 1) -> str:
    """A clause that proposes the known names most like `name`, or nothing."""
    alike = difflib.get_close_matches(name, list(known), n=n)
    return f", did you mean {' or '.join(alike)}?" if alike else ""
