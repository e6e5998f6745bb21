"""Choosing a detector: every combination of a grid, tried jointly over all attacks.

The paper (section 4.2.1) optimises one K-nearest-neighbors classifier for all attacks together on validation data. Here
the data take turns in that (cross-validation, since one small fold decides by chance). The AUROC is of the pairs of all
turns ranked together; its mean over the attacks decides, and among combinations that are as good up to a tolerance the
one that costs fewest rows an image.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
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
from modeguard.detector.scorers import References, ScorerOptions, score_each
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
    for _, group in groupby(grid.configs(), key=_features_of):
        configs = list(group)
        turns = [_turn(configs[0], rotation) for rotation in rotations]
        _check_both_kinds(turns)
        scores = [_scores([config.scorer for config in configs], turn) for turn in turns]
        for config, of_turns in zip(configs, zip(*scores, strict=True), strict=True):
            auroc = _auroc_by_attack(turns, of_turns)
            yield Trial(config, sum(auroc.values()) / len(auroc), auroc, rows_per_image(config))


def best_trial(trials: Sequence[Trial], tolerance: float) -> Trial:
    """The cheapest trial whose mean AUROC is within `tolerance` of the best, and of equally cheap ones the best."""
    best = max(trial.mean_auroc for trial in trials)
    good = [trial for trial in trials if trial.mean_auroc >= best - tolerance]
    return min(good, key=lambda trial: (trial.n_rows, -trial.mean_auroc))


@dataclass(frozen=True, slots=True, eq=False)
class _Turn:
    """One turn in the features of some combinations.

    Attributes:
        references: what a scorer is fitted on.
        features: (n, n_features) of the validation images that can be judged, one attack's pairs after another's.
        is_adversarial: by attack, (n of the attack,) bool.
    """

    references: References
    features: Tensor
    is_adversarial: Mapping[str, Tensor]


def _features_of(config: DetectorConfig) -> tuple[object, ...]:
    """What two configurations share if their features are the same."""
    return config.features, config.questions, config.n_templates


def _turn(config: DetectorConfig, rotation: Rotation) -> _Turn:
    features, is_adversarial = [], {}
    for name, pairs in rotation.validation.items():
        extracted = extract_features(config, pairs.observation)
        kept = is_judged(extracted)
        features.append(extracted[kept])
        is_adversarial[name] = pairs.is_adversarial[kept]
    return _Turn(rotation.fit.references(config), torch.cat(features), is_adversarial)


def _scores(options: Sequence[ScorerOptions], turn: _Turn) -> list[Tensor]:
    try:
        return score_each(options, turn.references, turn.features)
    except DetectorInputError as error:
        raise TuningError(
            f"in a turn of the cross-validation there are {len(turn.references.features)} images to fit on that can "
            f"be judged, and {error}; raise n_sources, lower what the detector asks for, or give more classes templates"
        ) from error


def _check_both_kinds(turns: Sequence[_Turn]) -> None:
    names = list(turns[0].is_adversarial)
    empty = [name for name in names if len(_kinds(name, turns).unique()) < 2]
    if empty or not names:
        raise TuningError(
            f"attacks {', '.join(empty) or '(none)'} left no image of both kinds that can be judged for validation: "
            "the attack failed there, or the predicted classes have no template; raise n_sources, or give more "
            "classes templates"
        )


def _kinds(name: str, turns: Sequence[_Turn]) -> Tensor:
    return torch.cat([turn.is_adversarial[name] for turn in turns])


def _auroc_by_attack(turns: Sequence[_Turn], scores: Sequence[Tensor]) -> dict[str, float]:
    """AUROC of each attack's validation pairs, those of all turns together."""
    metrics: Any = importlib.import_module("sklearn.metrics")  # loads much; a recipe is read without it
    of_attack = [
        each.split([len(kinds) for kinds in turn.is_adversarial.values()])
        for turn, each in zip(turns, scores, strict=True)
    ]
    return {
        name: float(metrics.roc_auc_score(_kinds(name, turns).numpy(), torch.cat(parts).numpy()))
        for name, parts in zip(turns[0].is_adversarial, zip(*of_attack, strict=True), strict=True)
    }
