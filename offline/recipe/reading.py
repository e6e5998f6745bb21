"""From the name of a recipe, or the path of a file, to the record of it."""

import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from modeguard.offline.attacks import ATTACKS
from modeguard.offline.data import DataConfig, SplitConfig
from modeguard.offline.evaluation import EvaluationConfig
from modeguard.offline.recipe.errors import RecipeError, choices
from modeguard.offline.recipe.recipe import Recipe
from modeguard.offline.recipe.sections import (
    AttackPlan,
    ClassifierSection,
    InputSection,
    TemplateConfig,
)
from modeguard.offline.recipe.settings import apply_setting
from modeguard.offline.recipe.tables import as_table, check_table, keys_of, make, read_table
from modeguard.offline.training import TrainingConfig
from modeguard.offline.tuning import DetectorGrid
from modeguard.templates_store.classifiers import ClassifierSpec, nearest_names

__all__ = ["read_recipe", "shipped_recipes"]


def shipped_recipes() -> dict[str, str]:
    """The text of every recipe that comes with the package, by name."""
    directory = resources.files("modeguard.offline.recipe") / "shipped"
    files = sorted((file for file in directory.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    return {file.name.removesuffix(".toml"): file.read_text(encoding="utf-8") for file in files}


def read_recipe(
    recipe: str | Path, *, settings: Sequence[str] = (), environment: Mapping[str, str] = os.environ
) -> Recipe:
    """Read a shipped recipe by name, or a file by path.

    Args:
        recipe: such as "digits", or a path to a .toml file.
        settings: single values to change, such as "attacks.cw.n_steps=150"; see `apply_setting`.
        environment: MODEGUARD_DATA and MODEGUARD_WEIGHTS stand for the roots of data and weights.

    Raises:
        RecipeError: naming file, section and key, what was expected and what came.
    """
    text, source = _text_of(recipe)
    try:
        table = tomllib.loads(text)
    except ValueError as error:  # tomllib's own, or int's of thousands of digits
        raise RecipeError(f"{source}: not TOML: {error}") from error
    for setting in settings:
        apply_setting(setting, table)
    try:
        made = _recipe_of(table)
    except RecipeError as error:
        raise RecipeError(f"{source}: {error}") from error
    data_root, weights_root = environment.get("MODEGUARD_DATA"), environment.get("MODEGUARD_WEIGHTS")
    return made.with_overrides(
        data_root=Path(data_root) if data_root else None, weights_root=Path(weights_root) if weights_root else None
    )


def _text_of(recipe: str | Path) -> tuple[str, str]:
    shipped = shipped_recipes()
    if str(recipe) in shipped:
        return shipped[str(recipe)], f"recipe {recipe}"
    path = Path(recipe).expanduser()
    try:
        return path.read_text(encoding="utf-8-sig"), str(path)  # some editors put a byte-order mark first
    except FileNotFoundError:
        raise RecipeError(
            f"there is no recipe {str(recipe)!r}{nearest_names(str(recipe), shipped)}; shipped are "
            f"{', '.join(shipped)}; or give the path of a .toml file"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else f"cannot be read: {error.strerror}"
        raise RecipeError(f"recipe {path} {reason}; expected a TOML file") from error


def _recipe_of(table: Mapping[str, Any]) -> Recipe:
    keys = {name: (Any if name in _SECTIONS else hint, default) for name, (hint, default) in keys_of(Recipe).items()}
    values = check_table(keys, table, "")
    sections = {name: read(table[name], f"[{name}]") for name, read in _SECTIONS.items() if name in table}
    return make(Recipe, values, "", **sections)


def _classifier(table: object, place: str) -> ClassifierSection:
    """`[classifier]`: the fields of `ClassifierSpec`, and the section's own beside them."""
    values = check_table(keys_of(ClassifierSpec) | keys_of(ClassifierSection, without=["spec"]), table, place)
    return make(ClassifierSection, values, place, spec=make(ClassifierSpec, values, place))


def _attacks(table: object, place: str) -> dict[str, AttackPlan]:
    if not isinstance(table, Mapping):
        raise RecipeError(f"{place}: expected a table for each attack, such as [attacks.pgd]")
    return {name: _plan(name, entries) for name, entries in table.items()}


def _plan(name: str, entries: object) -> AttackPlan:
    """`[attacks.NAME]`: NAME is the attack, or `attack` says which; the rest are the plan's and the attack's fields."""
    place = f"[attacks.{name}]"
    table = as_table(entries, place)
    kind = table.get("attack", name)
    if not isinstance(kind, str) or kind not in ATTACKS:
        raise RecipeError(
            f"{place} {kind!r} is no attack{choices(str(kind), ATTACKS)}; "
            "for a name of your own say which one it is with `attack = ...`"
        )
    record: Any = ATTACKS[kind]  # every attack is a dataclass, its constructor
    keys = keys_of(record) | keys_of(AttackPlan, without=["kind", "attack"]) | {"attack": (str, None)}
    values = check_table(keys, table, place)
    return make(AttackPlan, values, place, kind=kind, attack=make(record, values, place))


_SECTIONS: Mapping[str, Callable[[object, str], object]] = {
    "data": partial(read_table, DataConfig),
    "split": partial(read_table, SplitConfig),
    "classifier": _classifier,
    "training": partial(read_table, TrainingConfig),
    "input": partial(read_table, InputSection),
    "templates": partial(read_table, TemplateConfig),
    "attacks": _attacks,
    "detector": partial(read_table, DetectorGrid),
    "evaluation": partial(read_table, EvaluationConfig),
}
