"""What CONTRIBUTING.md says of adding a question, a feature family and a scorer: one file and one line each.

A build tries them, the bundle carries them, and the detector that is read back judges as the one that was fitted.
"""

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
import torch
from torch import Tensor

from modeguard.detector import (
    FEATURES,
    Classifier,
    ClassTemplates,
    DetectorConfig,
    FeatureFamily,
    Leaf,
    cross_entropy_and_margin,
    detect,
    rows_per_image,
)
from modeguard.detector.questions import QUESTIONS, AtImage, Observation, Question
from modeguard.detector.scorers import SCORERS, References, ScorerKind
from modeguard.offline.console import Console
from modeguard.offline.pipeline import Build
from modeguard.offline.tuning import TuningError
from modeguard.templates_store.bundles import read_bundle
from tests.offline.toy_build import toy_recipe


@dataclass(frozen=True, slots=True, eq=False)
class DimmedAnswer:
    """Margins (n, n_levels) of the predicted class in darker copies of the images."""

    margins: Annotated[Tensor, Leaf("n n_levels", torch.float32)]


@dataclass(frozen=True, slots=True)
class Dimmed(Question[DimmedAnswer]):
    """How sure the classifier stays when the light goes out."""

    answer_type: ClassVar[type] = DimmedAnswer

    levels: tuple[float, ...] = (0.8, 0.5)

    def n_rows(self, n_templates: int) -> int:
        return len(self.levels)

    def ask(self, classifier: Classifier, images: Tensor, at_image: AtImage, templates: ClassTemplates) -> DimmedAnswer:
        margins = [cross_entropy_and_margin(classifier(level * images), at_image.predicted)[1] for level in self.levels]
        return DimmedAnswer(torch.stack(margins, dim=1))


def dimmed_margins(observation: Observation, _: DetectorConfig) -> Tensor:
    answer: DimmedAnswer = observation.answers["dimmed"]
    return answer.margins


@dataclass(frozen=True, slots=True)
class DistanceOptions:
    """The distance from the mean of the natural references."""

    kind: ClassVar[str] = "distance"

    power: float = 2.0

    def fit(self, references: References) -> "Distance":
        natural = references.features[~references.is_adversarial]
        return Distance(self, natural.mean(dim=0))


@dataclass(frozen=True, slots=True, eq=False)
class Distance:
    """A score far from [0, 1]."""

    options: DistanceOptions
    center: Annotated[Tensor, Leaf("n_features", torch.float64)]

    @property
    def decision(self) -> float:
        return 100.0

    @property
    def is_differentiable(self) -> bool:
        return True

    def score(self, features: Tensor) -> Tensor:
        return (features.to(self.center.dtype) - self.center).abs().pow(self.options.power).sum(dim=1)


def test_a_question_a_family_and_a_scorer_are_one_line_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(QUESTIONS, "dimmed", Dimmed)
    monkeypatch.setitem(FEATURES, "dimmed_margins", FeatureFamily(dimmed_margins, frozenset({"dimmed"})))
    monkeypatch.setitem(SCORERS, DistanceOptions.kind, ScorerKind(DistanceOptions, Distance))

    recipe = toy_recipe()
    grid = replace(recipe.detector, features=(("dimmed_margins", "sorted_logits"),), scorers=("distance",))
    build = Build(replace(recipe, detector=grid), tmp_path, Console(io.StringIO(), io.StringIO()))
    config = build.fitted.best.config
    assert (config.questions, config.scorer) == ({"dimmed": Dimmed()}, DistanceOptions())
    assert rows_per_image(config) == build.evaluation.chosen.n_rows == 1 + 2
    build.write_report(tmp_path / "report.html")
    build.write_bundle(tmp_path / "bundle")

    read = read_bundle(tmp_path / "bundle")
    assert read.detector.config == config
    images = build.pixels_of("calibration")
    found, expected = (
        detect(read.detector, read.classifier, images),
        detect(build.fitted.detector, read.classifier, images),
    )
    torch.testing.assert_close(found.score, expected.score)
    assert float(found.score.max()) > 1
    assert found.n_rows == 3 * len(images)


def test_an_unknown_scorer_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        TuningError, match=r"scorers has unknown names \['nobody'\]; the known ones are \[.*'neighbors'"
    ):
        replace(toy_recipe().detector, scorers=("nobody",))
