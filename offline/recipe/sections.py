"""The sections of a recipe that no other part of the program has a record for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from modeguard.offline.attacks import Attack
from modeguard.offline.recipe.errors import RecipeError
from modeguard.templates_store import MissingClasses
from modeguard.templates_store.classifiers import ClassifierSpec, parse_architecture

__all__ = [
    "CALIBRATION_SET",
    "EXTRA_SET",
    "SOURCE_SET",
    "AttackPlan",
    "ClassifierSection",
    "InputSection",
    "TemplateConfig",
]

CALIBRATION_SET, SOURCE_SET, EXTRA_SET = "calibration", "sources", "extra"
"""Names of the natural sets of images of a build; its attacks have other names."""


@dataclass(frozen=True, slots=True)
class ClassifierSection:
    """Which classifier, and where its weights are.

    Attributes:
        spec: what the network is; its fields stand in `[classifier]` itself.
        weights: file of ready weights, looked up as it is and under `weights_root`; None to train.
        weights_root: directory with ready weights.
        dtype: type that the network computes in; "auto" asks the hardware.
    """

    spec: ClassifierSpec
    weights: Path | None = None
    weights_root: Path | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"

    def __post_init__(self) -> None:
        parse_architecture(self.spec.architecture)

    def find_weights(self) -> Path | None:
        """The file of ready weights; None if the classifier is to be trained.

        Raises:
            RecipeError: if the file is in none of the places, naming them.
        """
        if self.weights is None:
            return None
        roots = [Path()] + ([self.weights_root] if self.weights_root else [])
        places = [root.expanduser() / self.weights.expanduser() for root in roots]
        for place in places:
            if place.is_file():
                return place
        raise RecipeError(
            f"[classifier] weights: no file at {' or '.join(map(str, dict.fromkeys(places)))}; give the directory with "
            "--weights or MODEGUARD_WEIGHTS, or leave `weights` out to train the classifier"
        )


@dataclass(frozen=True, slots=True)
class InputSection:
    """How other images become the classifier's: `InputSpec` without the shape, which the classifier has."""

    resize_to: int | None = None
    allow_resize: bool = True


@dataclass(frozen=True, slots=True)
class TemplateConfig:
    """Which training images serve as class templates.

    Attributes:
        n_templates: the most that are kept of a class.
        max_loss: cross-entropy that a template may have at the most.
        missing: what becomes of a class without enough of them: the build is refused, or the detector abstains.
    """

    n_templates: int = 4
    max_loss: float = 0.01
    missing: MissingClasses = "refuse"

    def __post_init__(self) -> None:
        if self.n_templates < 1 or self.max_loss <= 0:
            raise RecipeError(
                f"n_templates is at least 1 and max_loss above 0, got {self.n_templates} and {self.max_loss}"
            )


@dataclass(frozen=True, slots=True)
class AttackPlan:
    """One attack of a recipe.

    Attributes:
        kind: its name in `ATTACKS`.
        attack: the attack with its parameters.
        n_sources: how many of the source images it is run on, the first ones; None for all.
        batch_size: images attacked at a time.
    """

    kind: str
    attack: Attack
    n_sources: int | None = None
    batch_size: int = 256

    def __post_init__(self) -> None:
        if self.batch_size < 1 or (self.n_sources is not None and self.n_sources < 1):
            raise RecipeError(f"batch_size and n_sources are at least 1, got {self.batch_size} and {self.n_sources}")
