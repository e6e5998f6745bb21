"""From a TOML table to a frozen record, strictly: unknown names and wrong values are refused with their place.

Knows nothing of recipes: the annotations of a dataclass say what its table may hold.
"""

import dataclasses
import difflib
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from modeguard.detector.errors import ModeguardError

__all__ = ["FLAT", "RecipeError", "load_table", "nearest", "refuse_unknown"]

FLAT = {"flat": True}
"""Metadata of a field whose own fields stand directly in the table of the record that has it."""

Record = TypeVar("Record")


class RecipeError(ModeguardError, ValueError):
    """A recipe is missing, is not TOML, or says something that no build can do; the message names the place."""


def load_table(kind: type[Record], table: object, place: str, /, **given: object) -> Record:
    """Make a record of a TOML table.

    Args:
        kind: a dataclass whose fields are annotated with str, int, float, bool, Path, Literal, a tuple,
            another dataclass, or an optional of these. A field with the metadata `FLAT` takes its keys from the same
            table.
        table: what tomllib read.
        place: named in errors, such as "[attacks.cw]"; empty for the whole file.
        given: values of fields that do not come from the table; their names are not allowed in it.

    Raises:
        RecipeError: naming place and key, what was expected, and for unknown names the nearest and all allowed ones.
    """
    if not isinstance(table, Mapping):
        raise RecipeError(f"{place}: expected a table, got {_shown(table)}")
    refuse_unknown(table, _keys(kind) - set(given), place)
    return _make(kind, table, place, given)


def refuse_unknown(names: Iterable[str], allowed: Iterable[str], place: str) -> None:
    """Raise RecipeError for the first name that is not allowed, with the nearest and all allowed ones."""
    known = sorted(allowed)
    for name in names:
        if name not in known:
            raise RecipeError(
                f"{place} {name} is unknown{nearest(name, known)}; allowed are {', '.join(known)}".strip()
            )


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause that proposes the known name most like `name`, or nothing."""
    match = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {match[0]}?" if match else ""


def _keys(kind: type) -> set[str]:
    keys: set[str] = set()
    for field, hint in _fields(kind):
        keys |= _keys(hint) if field.metadata.get("flat") else {field.name}
    return keys


def _fields(kind: type) -> list[tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(kind)
    return [(field, hints[field.name]) for field in dataclasses.fields(kind) if field.init]


def _make(kind: type[Record], table: Mapping[str, object], place: str, given: Mapping[str, object]) -> Record:
    values = dict(given)
    missing = []
    for field, hint in _fields(kind):
        if field.name in given:
            continue
        if field.metadata.get("flat"):
            values[field.name] = _make(hint, table, place, {})
        elif field.name in table:
            values[field.name] = _convert(hint, table[field.name], _inside(place, field.name, hint))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            missing.append(field.name)
    if missing:
        allowed = ", ".join(sorted(_keys(kind)))
        raise RecipeError(f"{place} needs {', '.join(missing)}; allowed are {allowed}".strip())
    try:
        return kind(**values)
    except (ModeguardError, ValueError, TypeError) as error:
        raise RecipeError(f"{place} {error}".strip()) from error


def _inside(place: str, name: str, hint: object) -> str:
    if not dataclasses.is_dataclass(_without_none(hint)):
        return f"{place} {name}".strip()
    return f"{place[:-1]}.{name}]" if place.endswith("]") else f"[{name}]"


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (types.UnionType, typing.Union):
        kinds = [kind for kind in get_args(hint) if kind is not types.NoneType]
        if len(kinds) == 1:
            return kinds[0]
    return hint


def _convert(hint: Any, value: object, place: str) -> object:
    hint = _without_none(hint)
    if hint in _SIMPLE:
        accepts, make, expected = _SIMPLE[hint]
        if not accepts(value):
            raise RecipeError(f"{place}: expected {expected}, got {_shown(value)}")
        return make(value)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return load_table(hint, value, place)
    if get_origin(hint) in _COMPOUND:
        return _COMPOUND[get_origin(hint)](get_args(hint), value, place)
    raise TypeError(f"{place}: a recipe cannot hold {hint}")


def _literal(allowed: tuple[Any, ...], value: object, place: str) -> object:
    if not any(type(value) is type(choice) and value == choice for choice in allowed):
        names = [str(choice) for choice in allowed]
        raise RecipeError(
            f"{place}: {_shown(value)} is unknown{nearest(str(value), names)}; allowed are {', '.join(names)}"
        )
    return value


def _tuple(kinds: tuple[Any, ...], value: object, place: str) -> tuple[object, ...]:
    if not isinstance(value, list):
        raise RecipeError(f"{place}: expected a list, got {_shown(value)}")
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(value) != len(kinds):
        raise RecipeError(f"{place}: expected a list of {len(kinds)}, got {_shown(value)}")
    return tuple(
        _convert(kind, entry, f"{place}[{k}]") for k, (kind, entry) in enumerate(zip(kinds, value, strict=True))
    )


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{_WORDS.get(type(value), '')}{value!r}"


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_text(value: object) -> bool:
    return isinstance(value, str)


_SIMPLE: dict[Any, tuple[Callable[[object], bool], Callable[[Any], object], str]] = {
    bool: (lambda value: isinstance(value, bool), bool, "true or false"),
    int: (_is_int, int, "a whole number"),
    float: (_is_number, float, "a finite number"),
    str: (_is_text, str, "text"),
    Path: (lambda value: _is_text(value) and value != "", Path, "a path as text"),
}

_COMPOUND: dict[Any, Callable[[tuple[Any, ...], object, str], object]] = {Literal: _literal, tuple: _tuple}

_WORDS = {str: "the text ", list: "the list ", dict: "the table ", int: "the number ", float: "the number "}
