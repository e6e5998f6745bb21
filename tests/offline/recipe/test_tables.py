"""A table becomes a record, strictly: what TOML does not say is not read into it, and what is wrong has its place."""

import dataclasses
import math
from pathlib import Path
from typing import Literal

import pytest

from modeguard.detector import ModeguardError
from modeguard.offline.recipe import RecipeError
from modeguard.offline.recipe.tables import check_table, keys_of, make, read_table


class RefusalError(ModeguardError):
    """An error of a record that is no ValueError."""


@dataclasses.dataclass(frozen=True, slots=True)
class Thing:
    """One field of every kind."""

    size: int
    share: float = 0.5
    is_on: bool = False
    kind: Literal["a", "b", 3] = "a"
    pair: tuple[int, float] = (1, 2.0)
    words: tuple[tuple[str, ...], ...] = ()
    place: Path = Path("here")
    other_place: Path | None = None
    limit: int | None = None
    either: int | tuple[int, ...] = 0

    def __post_init__(self) -> None:
        if self.size == 13:
            raise ValueError("size is not 13")
        if self.size == 14:
            raise RefusalError("size is not 14")


def test_every_kind_of_field_is_read() -> None:
    table = {
        "size": 5,
        "share": 1,
        "is_on": True,
        "kind": 3,
        "pair": [1, 2],
        "words": [["x", "y"], []],
        "place": "p",
        "other_place": "q",
        "limit": 10**30,
        "either": [1, 2],
    }
    read = read_table(Thing, table, "[t]")
    assert read == Thing(5, 1.0, True, 3, (1, 2.0), (("x", "y"), ()), Path("p"), Path("q"), 10**30, (1, 2))
    assert (type(read.share), type(read.pair[1])) == (float, float)


def test_what_is_left_out_has_the_default_of_the_record() -> None:
    assert read_table(Thing, {"size": 5}, "[t]") == Thing(5)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", True),
        ("size", 5.0),
        ("size", "5"),
        ("share", True),
        ("share", "0.5"),
        ("share", math.nan),
        ("share", -math.inf),
        ("share", 10**400),
        pytest.param("share", 1 << 20_000, id="share-thousands of digits"),
        ("is_on", 1),
        ("is_on", "true"),
        ("kind", True),
        ("pair", "12"),
        ("pair", {"0": 1, "1": 2.0}),
        ("pair", [1]),
        ("pair", [1, 2.0, 3]),
        ("words", ["xy"]),
        ("words", [[1]]),
        ("place", ""),
        ("place", 3),
        ("other_place", ""),
        ("limit", "none"),
        ("either", ["x"]),
    ],
)
def test_no_value_is_made_into_another(key: str, value: object) -> None:
    with pytest.raises(RecipeError, match=rf"^\[t\] {key}.*: (expected .*, got |.* is unknown; allowed are )"):
        read_table(Thing, {"size": 5, key: value}, "[t]")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"sise": 4},
            r"^\[t\] sise is unknown, did you mean size\?; allowed are either, is_on, kind, limit, .*words$",
        ),
        ({"share": 1}, r"^\[t\] needs size; allowed are either, is_on, kind, .*words$"),
        ({"size": 1, "kind": True}, r"^\[t\] kind: true is unknown; allowed are a, b, 3$"),
        ({"size": 1, "kind": "bb"}, r"^\[t\] kind: the text 'bb' is unknown, did you mean b\?; allowed are a, b, 3$"),
        ({"size": 1, "pair": [1, 10**400]}, r"^\[t\] pair\[1\]: expected a finite number, got the number 10+$"),
        ({"size": 1, "pair": [1]}, r"^\[t\] pair: expected a list of 2, got the list \[1\]$"),
        ({"size": 1, "words": [[], ["x", 2]]}, r"^\[t\] words\[1\]\[1\]: expected text, got the number 2$"),
        ({"size": 1, "words": [[], [["x"]]]}, r"^\[t\] words\[1\]\[0\]: expected text, got the list \['x'\]$"),
        (
            {"size": 1, "share": 1 << 20_000},
            r"^\[t\] share: expected a finite number, got a number of thousands of digits$",
        ),
        ({"size": 1, "either": 0.5}, r"^\[t\] either: expected int \| tuple\[int, \.\.\.\], got the number 0\.5$"),
        ({"size": 13}, r"^\[t\] size is not 13$"),
        ({"size": 14}, r"^\[t\] size is not 14$"),
        ([1], r"^\[t\]: expected a table, got the list \[1\]$"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(table: object, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read_table(Thing, table, "[t]")


def test_the_first_fault_is_an_unknown_key_then_a_wrong_value_then_a_missing_one() -> None:
    with pytest.raises(RecipeError, match="sise is unknown"):
        read_table(Thing, {"share": "x", "sise": 3}, "[t]")
    with pytest.raises(RecipeError, match="share: expected a finite number"):
        read_table(Thing, {"share": "x"}, "[t]")


@dataclasses.dataclass(frozen=True, slots=True)
class Owner:
    """A record that shares its table with another one."""

    thing: Thing
    name: str
    kind: str = "given"


def test_two_records_may_share_a_table() -> None:
    keys = keys_of(Thing) | keys_of(Owner, without=["thing", "kind"])
    values = check_table(keys, {"size": 4, "name": "n", "kind": "b"}, "[o]")
    owner = make(Owner, values, "[o]", thing=make(Thing, values, "[o]"), kind="other")
    assert owner == Owner(Thing(4, kind="b"), "n", "other")
    with pytest.raises(RecipeError, match=r"\[o\] thing is unknown.*; allowed are either, is_on, kind, limit, name, "):
        check_table(keys, {"size": 4, "name": "n", "thing": {}}, "[o]")
    with pytest.raises(RecipeError, match=r"\[o\] needs size, name; allowed are"):
        check_table(keys, {}, "[o]")
