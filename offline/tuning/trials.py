"""Choosing a detector: every combination of a grid, tried with scikit-learn, jointly over all attacks.

The seed (section 4.2.1) optimises one K-nearest-neighbours classifier for all attacks together on validation data. Here
the data take turns in that (cross-validation, since one small fold decides by chance). The AUROC is of the pairs of all
turns ranked together; its mean over the attacks decides, and among combinations that are as good up to a tolerance the
one that costs fewest rows an image.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import FunctionTransformer, RobustScaler, StandardScaler
from torch import Tensor

from modeguard.detector import DetectorConfig, Observation, extract_features
from modeguard.offline.tuning.grid import DetectorGrid, TuningError, rows_per_image

__all__ = ["LabelledObservation", "Rotation", "Trial", "best_trial", "run_trials"]

Array = NDArray[np.float64]

_SCALERS = {"none": FunctionTransformer, "standard": StandardScaler, "robust": RobustScaler}


@dataclass(frozen=True, slots=True, eq=False)
class LabelledObservation:
    """What was observed of images of both kinds.

    Attributes:
        observation: of n images, by the grid's widest configuration.
        is_adversarial: (n,) bool.
    """

    observation: Observation
    is_adversarial: Tensor


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


def run_trials(grid: DetectorGrid, rotations: Sequence[Rotation]) -> Iterator[Trial]:
    """Try every combination of a grid in every turn; scores of all turns are ranked together.

    Args:
        grid: the choices.
        rotations: at least one turn.

    Raises:
        TuningError: if a k is larger than a fit set, a fit set has one kind of images only, or an attack has no pair to
            validate on.
    """
    extracted: dict[tuple[object, ...], list[_RotationFeatures]] = {}
    nearest: dict[tuple[object, ...], list[dict[str, _Neighbours]]] = {}
    largest = max(grid.n_neighbors)
    for config in grid.configs():
        features_key = (config.features, config.alphas, config.n_templates)
        if features_key not in extracted:
            extracted = {features_key: [_RotationFeatures.of(config, rotation) for rotation in rotations]}
            _check_references(extracted[features_key])
            _check_both_kinds(extracted[features_key])
        turns = extracted[features_key]
        nearest_key = (*features_key, config.scaling, config.metric)
        if nearest_key not in nearest:
            nearest = {nearest_key: [_neighbours(config, turn, largest) for turn in turns]}
        auroc = {name: _auroc(config, name, turns, nearest[nearest_key]) for name in turns[0].queries}
        yield Trial(config, float(np.mean(list(auroc.values()))), auroc, rows_per_image(config))


def best_trial(trials: Sequence[Trial], tolerance: float) -> Trial:
    """The cheapest trial whose mean AUROC is within `tolerance` of the best, and of equally cheap ones the best."""
    best = max(trial.mean_auroc for trial in trials)
    good = [trial for trial in trials if trial.mean_auroc >= best - tolerance]
    return min(good, key=lambda trial: (trial.n_rows, -trial.mean_auroc))


@dataclass(frozen=True, slots=True, eq=False)
class _Features:
    """Features (n, n_features) and labels (n,), 1 for adversarial, of the images that can be judged."""

    values: Array
    labels: Array


def _features_of(config: DetectorConfig, labelled: LabelledObservation) -> _Features:
    features = extract_features(config, labelled.observation)
    is_judged = features.isfinite().all(dim=1)
    return _Features(features[is_judged].double().numpy(), labelled.is_adversarial[is_judged].double().numpy())


@dataclass(frozen=True, slots=True, eq=False)
class _RotationFeatures:
    references: _Features
    queries: dict[str, _Features]

    @classmethod
    def of(cls, config: DetectorConfig, rotation: Rotation) -> "_RotationFeatures":
        queries = {name: _features_of(config, pairs) for name, pairs in rotation.validation.items()}
        return cls(_features_of(config, rotation.fit), queries)


_Neighbours = tuple[Array, NDArray[np.intp]]
"""Distances (n, k) and indices (n, k) of the references nearest to each query, nearest first."""


def _check_references(turns: Sequence[_RotationFeatures]) -> None:
    if any(len(np.unique(turn.references.labels)) < 2 for turn in turns):
        raise TuningError(
            "in a turn of the cross-validation the images to fit on that can be judged are all natural or all "
            "adversarial: too few attacks succeeded, or the predicted classes have no template; raise n_sources, or "
            "give more classes templates"
        )


def _check_both_kinds(turns: Sequence[_RotationFeatures]) -> None:
    names = list(turns[0].queries)
    empty = [name for name in names if len(np.unique(_labels(name, turns))) < 2]
    if empty or not names:
        raise TuningError(
            f"attacks {', '.join(empty) or '(none)'} left no image of both kinds that can be judged for validation: "
            "the attack failed there, or the predicted classes have no template; raise n_sources, or give more "
            "classes templates"
        )


def _labels(name: str, turns: Sequence[_RotationFeatures]) -> Array:
    return np.concatenate([turn.queries[name].labels for turn in turns])


def _neighbours(config: DetectorConfig, turn: _RotationFeatures, n_neighbors: int) -> dict[str, _Neighbours]:
    """The nearest references of each query, by attack."""
    references = turn.references
    if n_neighbors > len(references.values):
        raise TuningError(
            f"n_neighbors goes up to {n_neighbors}, but there are {len(references.values)} images to fit on while the "
            "others validate; lower it or raise n_sources"
        )
    scaler = _SCALERS[config.scaling]().fit(references.values)
    classifier = KNeighborsClassifier(n_neighbors=n_neighbors, metric=config.metric, algorithm="brute")
    classifier.fit(scaler.transform(references.values), references.labels)
    return {
        name: classifier.kneighbors(scaler.transform(query.values))
        for name, query in turn.queries.items()
        if len(query.values)
    }


def _auroc(
    config: DetectorConfig,
    name: str,
    turns: Sequence[_RotationFeatures],
    nearest: Sequence[Mapping[str, _Neighbours]],
) -> float:
    """AUROC of one attack's validation pairs, those of all turns together."""
    scores = [
        _scores(config, turn.references.labels, *found[name])
        for turn, found in zip(turns, nearest, strict=True)
        if name in found
    ]
    return float(roc_auc_score(_labels(name, turns), np.concatenate(scores)))


def _scores(config: DetectorConfig, votes: Array, distances: Array, indices: NDArray[np.intp]) -> Array:
    """What KNeighborsClassifier.predict_proba gives for the first k of the neighbours found."""
    k = config.n_neighbors
    chosen = votes[indices[:, :k]]
    if config.weights == "uniform":
        uniform: Array = chosen.mean(axis=1)
        return uniform
    is_same = distances[:, :k] == 0
    with np.errstate(divide="ignore"):
        weights = np.where(is_same.any(axis=1, keepdims=True), is_same, 1 / distances[:, :k])
    scores: Array = (weights * chosen).sum(axis=1) / weights.sum(axis=1)
    return scores
