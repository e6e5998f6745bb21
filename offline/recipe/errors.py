"""The error of this room, and the end of its messages: the name that was probably meant, and the allowed ones."""

import difflib
from collections.abc import Iterable

from modeguard.detector import ModeguardError

__all__ = ["RecipeError", "choices", "nearest"]


class RecipeError(ModeguardError, ValueError):
    """A recipe is missing, is not TOML, or says something that no build can do; the message names the place."""


def choices(name: str, known: Iterable[str]) -> str:
    """What a message about an unknown name ends with: the nearest known name, and all of them."""
    known = list(known)
    return f"{nearest(name, known)}; allowed are {', '.join(known)}"


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause that proposes the known name most like `name`, or nothing."""
    match = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {match[0]}?" if match else ""
