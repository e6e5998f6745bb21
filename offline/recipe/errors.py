"""The error of this room, and the end of its messages: the name that was probably meant, and the allowed ones."""

from collections.abc import Iterable

from modeguard.detector import ModeguardError
from modeguard.templates_store.classifiers import nearest_names

__all__ = ["RecipeError", "choices"]


class RecipeError(ModeguardError, ValueError):
    """A recipe is missing, is not TOML, or says something that no build can do; the message names the place."""


def choices(name: str, known: Iterable[str]) -> str:
    """What a message about an unknown name ends with: the nearest known name, and all of them."""
    known = list(known)
    return f"{nearest_names(name, known)}; allowed are {', '.join(known)}"
