"""A recipe: everything about a build in one frozen record, which refuses sections that do not fit each other.

Each section is the record of the code that uses it, so an option is declared, checked and documented in one place.
"""

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path

from modeguard.detector import smallest_calibration_set
from modeguard.offline.attacks import ATTACKS
from modeguard.offline.data import DATASETS, DataConfig, SplitConfig
from modeguard.offline.evaluation import EvaluationConfig
from modeguard.offline.recipe.errors import RecipeError, choices
from modeguard.offline.recipe.sections import (
    CALIBRATION_SET,
    EXTRA_SET,
    SOURCE_SET,
    AttackPlan,
    ClassifierSection,
    InputSection,
    TemplateConfig,
)
from modeguard.offline.training import TrainingConfig
from modeguard.offline.tuning import DetectorGrid
from modeguard.templates_store.images import InputSpec

__all__ = ["Recipe"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


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


def _check_names(recipe: Recipe) -> None:
    if not _NAME.fullmatch(recipe.name):
        raise RecipeError(
            f"name: expected letters, digits, '.', '_' and '-', it names a directory, got {recipe.name!r}"
        )
    if not 0 <= recipe.seed < 2**63:
        raise RecipeError(f"seed: expected 0 to 2**63 - 1, got {recipe.seed}")
    if recipe.data.dataset not in DATASETS:
        raise RecipeError(f"[data] dataset: {recipe.data.dataset!r} is unknown{choices(recipe.data.dataset, DATASETS)}")


def _check_attacks(recipe: Recipe) -> None:
    if not recipe.attacks:
        raise RecipeError(f"[attacks] needs at least one attack; allowed are {', '.join(ATTACKS)}")
    for name, plan in recipe.attacks.items():
        if not _NAME.fullmatch(name):
            raise RecipeError(f"[attacks.{name}]: expected a name of letters, digits, '.', '_' and '-'")
        if name in (CALIBRATION_SET, SOURCE_SET, EXTRA_SET):
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
