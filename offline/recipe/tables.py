"""From a TOML table to a frozen record: pydantic checks the table, and what it refuses is said in one line.

Knows nothing of recipes: the annotations of a dataclass say what its table may hold. The strict mode is that of Python
values, in which a whole number is no bool, a float may be written as a whole number, and text stays text. It takes
neither a list for a tuple, nor text for a path, nor a dict for a dataclass; therefore lists become tuples and texts
become paths on the way in, and the dataclass is called with what was checked.
"""

import dataclasses
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, create_model

from modeguard.detector import ModeguardError
from modeguard.offline.recipe.errors import RecipeError, choices

__all__ = ["Keys", "as_table", "check_table", "keys_of", "make", "read_table"]

Keys = dict[str, tuple[Any, Any]]
"""The keys of a table: annotation and default of each, the default `...` where the key is required."""

Record = TypeVar("Record")

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


def read_table(record: type[Record], table: object, place: str) -> Record:
    """Make a record of the table that holds its fields.

    Args:
        record: a dataclass whose fields are annotated with str, int, float, bool, Path, Literal, a tuple, an optional
            of these, or whatever else pydantic's strict mode makes of TOML's values.
        table: what tomllib read.
        place: named in errors, such as "[attacks.cw]"; empty for the whole file.

    Raises:
        RecipeError: naming place and key, what was expected, and for unknown names the nearest and all allowed ones.
    """
    return make(record, check_table(keys_of(record), table, place), place)


def keys_of(record: type, *, without: Collection[str] = ()) -> Keys:
    """The keys that the fields of a dataclass are read from, except some."""
    hints = typing.get_type_hints(record)
    return {
        field.name: (hints[field.name], ... if _is_required(field) else None)
        for field in dataclasses.fields(record)
        if field.init and field.name not in without
    }


def check_table(keys: Keys, table: object, place: str) -> dict[str, Any]:
    """The values of a table, checked; keys that it leaves out are absent, so that a record's own defaults hold.

    Raises:
        RecipeError: as `read_table` says.
    """
    table = as_table(table, place)
    definitions: dict[str, Any] = {name: (_READ_AS.get(hint, hint), default) for name, (hint, default) in keys.items()}
    model: type[BaseModel] = create_model("Table", __config__=_STRICT, **definitions)
    try:
        checked = model.model_validate({name: _without_lists(value) for name, value in table.items()})
    except ValidationError as error:
        raise RecipeError(_message(error, keys, table, place).strip()) from None
    return {name: getattr(checked, name) for name in checked.model_fields_set}


def as_table(value: object, place: str) -> Mapping[str, Any]:
    """The value, if it is a table.

    Raises:
        RecipeError: if it is not.
    """
    if not isinstance(value, Mapping):
        raise RecipeError(f"{place}: expected a table, got {_shown(value)}")
    return value


def make(record: type[Record], values: Mapping[str, Any], place: str, **given: object) -> Record:
    """Call a dataclass with those of the checked values that are its fields, and with what is given beside them.

    Raises:
        RecipeError: what the dataclass itself refuses, with the place.
    """
    names = {field.name for field in dataclasses.fields(record)}  # type: ignore[arg-type]  # a dataclass, see above
    try:
        return record(**{name: value for name, value in values.items() if name in names} | given)
    except (ModeguardError, ValueError) as error:
        raise RecipeError(f"{place} {error}".strip()) from error


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _without_lists(value: object) -> object:
    return tuple(map(_without_lists, value)) if isinstance(value, list) else value


def _path(value: object) -> object:
    return Path(value) if isinstance(value, str) and value else value  # what is no path is refused as it came


_READ_AS: dict[Any, Any] = {
    Path: Annotated[Path, BeforeValidator(_path)],
    Path | None: Annotated[Path | None, BeforeValidator(_path)],
}


def _message(error: ValidationError, keys: Keys, table: Mapping[str, Any], place: str) -> str:
    """One line about the first unknown key, or else the first wrong value, or else all missing keys."""
    faults = [(fault["type"], *fault["loc"]) for fault in error.errors(include_url=False, include_context=False)]
    for kind, name, *_ in faults:
        if kind == "extra_forbidden":
            return f"{place} {name} is unknown{choices(str(name), sorted(keys))}"
    for kind, name, *steps in faults:
        if kind != "missing":
            return _about_value(keys[str(name)][0], table[str(name)], f"{place} {name}", steps)
        if steps:  # of a list that is too short pydantic names the element that is not there
            return _about_value(keys[str(name)][0], table[str(name)], f"{place} {name}", steps[:-1])
    missing = ", ".join(str(name) for _, name in faults)
    return f"{place} needs {missing}; allowed are {', '.join(sorted(keys))}"


def _about_value(hint: Any, value: Any, place: str, steps: Sequence[int | str]) -> str:
    """What is wrong with a value, or with what lies in it `steps` down its nested lists."""
    for step in steps:
        if not isinstance(step, int):  # of a union or a dict; its annotation says enough
            break
        hint, value, place = _element(hint, step), value[step], f"{place}[{step}]"
    hint = _without_none(hint)
    if get_origin(hint) is Literal:
        return f"{place}: {_shown(value)} is unknown{choices(str(value), map(str, get_args(hint)))}"
    return f"{place}: expected {_expected(hint)}, got {_shown(value)}"


def _element(hint: Any, index: int) -> Any:
    kinds = get_args(_without_none(hint))
    return kinds[0] if kinds[-1] is Ellipsis else kinds[index]


def _without_none(hint: Any) -> Any:
    kinds = [kind for kind in get_args(hint) if kind is not types.NoneType]
    return kinds[0] if get_origin(hint) in (types.UnionType, typing.Union) and len(kinds) == 1 else hint


def _expected(hint: Any) -> str:
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        return "a list" if kinds[-1] is Ellipsis else f"a list of {len(kinds)}"
    return _EXPECTED.get(hint, str(hint))


_EXPECTED = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "text",
    Path: "a path as text",
}


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    try:
        return f"{_WORDS.get(type(value), '')}{value!r}"
    except ValueError:  # Python does not write out numbers of more than 4,300 digits
        return "a number of thousands of digits"


_WORDS = {str: "the text ", list: "the list ", dict: "the table ", int: "the number ", float: "the number "}
