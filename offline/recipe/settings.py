"""Single values changed on the command line: `--set attacks.cw.n_steps=150`."""

import re
import tomllib
from typing import Any

from modeguard.offline.recipe.errors import RecipeError

__all__ = ["apply_setting"]

_BARE_TEXT = re.compile(r"[A-Za-z_./~][\w./:~-]*")


def apply_setting(setting: str, table: dict[str, Any]) -> None:
    """Put one "dotted.name=value" into what tomllib read.

    Args:
        setting: a dotted name and a TOML value; a plain word or a path is taken as text without quotes.
        table: changed in place.

    Raises:
        RecipeError: if it is not of that form, or the name leads into a value.
    """
    name, equals, text = setting.partition("=")
    keys = [key.strip() for key in name.split(".")]
    if not equals or not all(keys):
        raise RecipeError(f"setting {setting!r}: expected SECTION.KEY=VALUE, such as attacks.pgd.epsilon=0.03")
    for depth, key in enumerate(keys[:-1]):
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise RecipeError(f"setting {setting!r}: {'.'.join(keys[: depth + 1])} is a value, not a table")
    table[keys[-1]] = _value(text.strip(), setting)


def _value(text: str, setting: str) -> object:
    try:
        read = tomllib.loads(f"value = {text}")
    except ValueError as error:  # tomllib's own, or int's of thousands of digits
        if _BARE_TEXT.fullmatch(text):
            return text
        raise RecipeError(f"setting {setting!r}: {text!r} is not a TOML value: {error}") from error
    if set(read) != {"value"}:
        raise RecipeError(f"setting {setting!r}: expected one value")
    return read["value"]
