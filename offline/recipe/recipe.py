"""A recipe: one TOML file that says everything about a build, read into frozen records.

Each section is the record of the code that uses it, so an option is declared, checked and documented in one place.
Names, types, ranges and what sections must agree on are all checked before any work begins.
"""

import dataclasses
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from modeguard.detector.calibration import smallest_calibration_set
from modeguard.offline.attacks import ATTACKS
from modeguard.offline.data.datasets import DATASETS, DataConfig
from modeguard.offline.data.roles import SplitConfig
from modeguard.offline.evaluation import EvaluationConfig
from modeguard.offline.recipe.loader import RecipeError, load_table, nearest, refuse_unknown
from modeguard.offline.recipe.sections import (
    CALIBRATION,
    EXTRA,
    SOURCES,
    AttackPlan,
    ClassifierSection,
    InputSection,
    TemplateConfig,
)
from modeguard.offline.training.config import TrainingConfig
from modeguard.offline.tuning import DetectorGrid
from modeguard.templates_store.images import InputSpec

__all__ = [
    "AttackPlan",
    "ClassifierSection",
    "InputSection",
    "Recipe",
    "RecipeError",
    "TemplateConfig",
    "read_recipe",
    "shipped_recipes",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_BARE_TEXT = re.compile(r"[A-Za-z_./~][\w./:~-]*")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything about a build. See the shipped recipes for what each section says."""

    name: str
    data: DataConfig
    split: SplitConfig
    classifier: ClassifierSection
    attacks: dict[str, AttackPlan]
    detector: DetectorGrid
    training: TrainingConfig = field(default_factory=TrainingConfig)
    input: InputSection = field(default_factory=InputSection)
    templates: TemplateConfig = field(default_factory=TemplateConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        for check in (_check_names, _check_attacks, _check_calibration, _check_templates, _check_input):
            check(self)

    @property
    def input_spec(self) -> InputSpec:
        """How the bytes of an image become the classifier's."""
        return InputSpec(
            shape=self.classifier.spec.input_shape,
            resize_to=self.input.resize_to,
            allow_resize=self.input.allow_resize,
        )

    @property
    def weights_path(self) -> Path | None:
        """The file of ready weights; None if the classifier is to be trained.

        Raises:
            RecipeError: if the file is in none of the places where it is looked for, naming them.
        """
        return self.classifier.find_weights()

    def with_overrides(
        self, *, seed: int | None = None, data_root: Path | None = None, weights_root: Path | None = None
    ) -> "Recipe":
        """The same recipe with what was given on the command line; None keeps what the recipe says."""
        recipe = self if seed is None else dataclasses.replace(self, seed=seed)
        if data_root is not None:
            recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, root=data_root))
        if weights_root is not None:
            classifier = dataclasses.replace(recipe.classifier, weights_root=weights_root)
            recipe = dataclasses.replace(recipe, classifier=classifier)
        return recipe


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
        settings: single values to change, such as "attacks.cw.n_steps=150": a dotted name and a TOML value; a value
            that is a plain word or a path is taken as text without quotes.
        environment: MODEGUARD_DATA and MODEGUARD_WEIGHTS stand for the roots of data and weights.

    Raises:
        RecipeError: naming file, section and key, what was expected and what came.
    """
    text, source = _text_of(recipe)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{source}: not TOML: {error}") from error
    for setting in settings:
        _apply(setting, table)
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
        return path.read_text(encoding="utf-8"), str(path)
    except FileNotFoundError:
        raise RecipeError(
            f"there is no recipe {str(recipe)!r}{nearest(str(recipe), shipped)}; shipped are {', '.join(shipped)}; "
            "or give the path of a .toml file"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else f"cannot be read: {error.strerror}"
        raise RecipeError(f"recipe {path} {reason}; expected a TOML file") from error


def _apply(setting: str, table: dict[str, Any]) -> None:
    """Put one "dotted.name=value" into the table."""
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
    except tomllib.TOMLDecodeError as error:
        if _BARE_TEXT.fullmatch(text):
            return text
        raise RecipeError(f"setting {setting!r}: {text!r} is not a TOML value: {error}") from error
    if set(read) != {"value"}:
        raise RecipeError(f"setting {setting!r}: expected one value")
    return read["value"]


def _recipe_of(table: Mapping[str, Any]) -> Recipe:
    if "attacks" not in table:
        return load_table(Recipe, table, "")
    attacks = table["attacks"]
    if not isinstance(attacks, Mapping):
        raise RecipeError("[attacks]: expected a table for each attack, such as [attacks.pgd]")
    plans = {name: _plan(name, entries) for name, entries in attacks.items()}
    rest = {key: value for key, value in table.items() if key != "attacks"}
    refuse_unknown(rest, (each.name for each in dataclasses.fields(Recipe)), "")
    return load_table(Recipe, rest, "", attacks=plans)


def _plan(name: str, entries: object) -> AttackPlan:
    """`[attacks.NAME]`: NAME is the attack, or `attack` says which; the rest are the plan's and the attack's fields."""
    place = f"[attacks.{name}]"
    if not isinstance(entries, Mapping):
        raise RecipeError(f"{place}: expected a table, got {entries!r}")
    if not _NAME.fullmatch(name):
        raise RecipeError(f"{place}: expected a name of letters, digits, '.', '_' and '-'")
    kind = entries.get("attack", name)
    if not isinstance(kind, str) or kind not in ATTACKS:
        raise RecipeError(
            f"{place} {kind!r} is no attack{nearest(str(kind), ATTACKS)}; allowed are {', '.join(ATTACKS)}; "
            "for a name of your own say which one it is with `attack = ...`"
        )
    record: type[Any] = ATTACKS[kind]  # type: ignore[assignment]  # every attack is a dataclass, its constructor
    of_attack = {each.name for each in dataclasses.fields(record)}
    of_plan = {"n_sources", "batch_size"}
    refuse_unknown(entries, of_attack | of_plan | {"attack"}, place)
    attack = load_table(record, {key: value for key, value in entries.items() if key in of_attack}, place)
    plan = {key: value for key, value in entries.items() if key in of_plan}
    return load_table(AttackPlan, plan, place, kind=kind, attack=attack)


def _check_names(recipe: Recipe) -> None:
    if not _NAME.fullmatch(recipe.name):
        raise RecipeError(
            f"name: expected letters, digits, '.', '_' and '-', it names a directory, got {recipe.name!r}"
        )
    if not 0 <= recipe.seed < 2**63:
        raise RecipeError(f"seed: expected 0 to 2**63 - 1, got {recipe.seed}")
    refuse_unknown([recipe.data.dataset], DATASETS, "[data] dataset:")


def _check_attacks(recipe: Recipe) -> None:
    if not recipe.attacks:
        raise RecipeError(f"[attacks] needs at least one attack; allowed are {', '.join(ATTACKS)}")
    for name, plan in recipe.attacks.items():
        if name in (CALIBRATION, SOURCES, EXTRA):
            raise RecipeError(f"[attacks.{name}] has the name of a set of natural images; choose another name")
        if plan.n_sources is not None and plan.n_sources > recipe.split.n_sources:
            raise RecipeError(
                f"[attacks.{name}] n_sources is {plan.n_sources}, but [split] has only {recipe.split.n_sources}"
            )


def _check_calibration(recipe: Recipe) -> None:
    needed = smallest_calibration_set(recipe.detector.target_fpr)
    if recipe.split.n_calibration < needed:
        raise RecipeError(
            f"[split] n_calibration is {recipe.split.n_calibration}, but [detector] target_fpr = "
            f"{recipe.detector.target_fpr} needs at least {needed}; with fewer, no image could ever be flagged"
        )


def _check_templates(recipe: Recipe) -> None:
    if max(recipe.detector.n_templates) > recipe.templates.n_templates:
        raise RecipeError(
            f"[detector] n_templates asks for up to {max(recipe.detector.n_templates)}, more than the "
            f"[templates] n_templates = {recipe.templates.n_templates} that are kept"
        )


def _check_input(recipe: Recipe) -> None:
    try:
        _ = recipe.input_spec
    except ValueError as error:
        raise RecipeError(f"[input] {error}") from error
