"""Choosing a detector: every combination of a grid, tried jointly over all attacks.

The paper (section 4.2.1) optimises one K-nearest-neighbors classifier for all attacks together on validation data. Here
the data take turns in that (cross-validation, since one small fold decides by chance). The AUROC is of the pairs of all
turns ranked together; its mean over the attacks decides, and among combinations that are as good up to a tolerance the
one that costs fewest rows an image.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modeguard.detector import (
    Detector,
    DetectorConfig,
    DetectorInputError,
    extract_features,
    is_judged,
    references_of,
    rows_per_image,
)
from modeguard.detector.questions import Observation
from modeguard.detector.scorers import References, Scorer
from modeguard.offline.tuning.grid import DetectorGrid, TuningError


@dataclass(frozen=True, slots=True, eq=False)
class LabelledObservation:
    """What was observed of images of both kinds.

    Attributes:
        observation: of n images, by the grid's questions.
        is_adversarial: (n,) bool.
        source: (n,) int64, which natural image each is, or was made from.
    """

    observation: Observation
    is_adversarial: Tensor
    source: Tensor

    def references(self, config: DetectorConfig) -> References:
        """What a scorer is fitted on: the images that can be judged."""
        return references_of(config, self.observation, self.is_adversarial, self.source)


@dataclass(frozen=True, slots=True, eq=False)
class Rotation:
    """One turn of the cross-validation.

    Attributes:
        fit: reference images.
        validation: natural twins and adversarial images, by attack; the same attacks in every turn.
    """

    fit: LabelledObservation
    validation: Mapping[str, LabelledObservation]


@dataclass(frozen=True, slots=True)
class Trial:
    """One combination and how it did on the validation pairs of all turns together.

    Attributes:
        config: the combination.
        mean_auroc: mean over the attacks.
        auroc: by attack.
        n_rows: rows an image.
    """

    config: DetectorConfig
    mean_auroc: float
    auroc: dict[str, float]
    n_rows: int


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """The detector that was chosen, and all that were tried.

    Attributes:
        detector: fitted on all but the test fold, and calibrated.
        references: what its scorer was fitted on.
        best: the trial that decided.
        trials: every one.
    """

    detector: Detector
    references: References
    best: Trial
    trials: tuple[Trial, ...]


def run_trials(grid: DetectorGrid, rotations: Sequence[Rotation]) -> Iterator[Trial]:
    """Try every combination of a grid in every turn; scores of all turns are ranked together.

    Args:
        grid: the choices.
        rotations: at least one turn.

    Raises:
        TuningError: if a scorer cannot be fitted in a turn, or an attack has no pair to validate on.
    """
    turns: list[_Turn] = []
    last: DetectorConfig | None = None
    for config in grid.configs():
        if last is None or not _has_same_features(config, last):
            turns, last = [_turn(config, rotation) for rotation in rotations], config
            _check_both_kinds(turns)
        scorers = [_fitted(config, turn.references) for turn in turns]
        auroc = {name: _auroc(name, turns, scorers) for name in turns[0].queries}
        yield Trial(config, sum(auroc.values()) / len(auroc), auroc, rows_per_image(config))


def best_trial(trials: Sequence[Trial], tolerance: float) -> Trial:
    """The cheapest trial whose mean AUROC is within `tolerance` of the best, and of equally cheap ones the best."""
    best = max(trial.mean_auroc for trial in trials)
    good = [trial for trial in trials if trial.mean_auroc >= best - tolerance]
    return min(good, key=lambda trial: (trial.n_rows, -trial.mean_auroc))


@dataclass(frozen=True, slots=True, eq=False)
class _Query:
    """Features (n, n_features) and kinds (n,) of validation images that can be judged."""

    features: Tensor
    is_adversarial: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Turn:
    """One turn in the features of one combination."""

    references: References
    queries: Mapping[str, _Query]


def _has_same_features(config: DetectorConfig, other: DetectorConfig) -> bool:
    return (config.features, config.questions, config.n_templates) == (
        other.features,
        other.questions,
        other.n_templates,
    )


def _turn(config: DetectorConfig, rotation: Rotation) -> _Turn:
    return _Turn(
        rotation.fit.references(config), {name: _query(config, pairs) for name, pairs in rotation.validation.items()}
    )


def _query(config: DetectorConfig, pairs: LabelledObservation) -> _Query:
    features = extract_features(config, pairs.observation)
    kept = is_judged(features)
    return _Query(features[kept], pairs.is_adversarial[kept])


def _fitted(config: DetectorConfig, references: References) -> Scorer:
    try:
        return config.scorer.fit(references)
    except DetectorInputError as error:
        raise TuningError(
            f"in a turn of the cross-validation there are {len(references.features)} images to fit on that can be "
            f"judged, and {error}; raise n_sources, lower what the detector asks for, or give more classes templates"
        ) from error


def _check_both_kinds(turns: Sequence[_Turn]) -> None:
    names = list(turns[0].queries)
    empty = [name for name in names if len(_kinds(name, turns).unique()) < 2]
    if empty or not names:
        raise TuningError(
            f"attacks {', '.join(empty) or '(none)'} left no image of both kinds that can be judged for validation: "
            "the attack failed there, or the predicted classes have no template; raise n_sources, or give more "
            "classes templates"
        )


def _kinds(name: str, turns: Sequence[_Turn]) -> Tensor:
    return torch.cat([turn.queries[name].is_adversarial for turn in turns])


def _auroc(name: str, turns: Sequence[_Turn], scorers: Sequence[Scorer]) -> float:
    """AUROC of one attack's validation pairs, those of all turns together."""
    scores = [scorer.score(turn.queries[name].features) for turn, scorer in zip(turns, scorers, strict=True)]
    metrics: Any = importlib.import_module("sklearn.metrics")  # loads much; a recipe is read without it
    return float(metrics.roc_auc_score(_kinds(name, turns).numpy(), torch.cat(scores).numpy()))
