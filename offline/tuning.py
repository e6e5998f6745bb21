"""Choosing a detector: every combination of a grid, tried with scikit-learn, jointly over all attacks.

The seed (section 4.2.1) optimises one K-nearest-neighbours classifier for all attacks together on validation data. Here
the data take turns in that (cross-validation, since one small fold decides by chance). The AUROC is of the pairs of all
turns ranked together; its mean over the attacks decides, and among combinations that are as good up to a tolerance the
one that costs fewest rows an image.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import FunctionTransformer, RobustScaler, StandardScaler
from torch import Tensor

from detector import DetectorConfig, ModeguardError, Observation, extract_features
from detector.features import FEATURES, families_of
from detector.neighbors import Metric, Scaling, Weights

Array = NDArray[np.float64]

_SCALERS = {"none": FunctionTransformer, "standard": StandardScaler, "robust": RobustScaler}


class TuningError(ModeguardError, ValueError):
    """A grid that makes no sense, or data that no combination of it can be tried on."""


@dataclass(frozen=True, slots=True)
class DetectorGrid:
    """What to choose from; every combination is tried.

    Attributes:
        n_points: numbers of points on the path, image and template included, each at least 2.
        n_templates: numbers of templates a class.
        features: combinations of feature families.
        n_neighbors, weights, metric, scaling: see `detector.fit_neighbours`.
        tolerance: mean AUROC that may be given up for a cheaper detector, in [0, 1].
        target_fpr: rate of natural images that the detector may flag.
        n_logits: logits that "sorted_logits" keeps at the most.
        noise_sigmas, n_noise_draws, persistence_gamma, persistence_steps: see `detector.DetectorConfig`.
    """

    n_points: tuple[int, ...] = (8,)
    n_templates: tuple[int, ...] = (1,)
    features: tuple[tuple[str, ...], ...] = (("loss_curve", "sorted_logits"),)
    n_neighbors: tuple[int, ...] = (5, 15, 25)
    weights: tuple[Weights, ...] = ("distance",)
    metric: tuple[Metric, ...] = ("euclidean",)
    scaling: tuple[Scaling, ...] = ("standard",)
    tolerance: float = 0.001
    target_fpr: float = 0.05
    n_logits: int = 100
    noise_sigmas: tuple[float, ...] = (0.02, 0.04, 0.08, 0.16)
    n_noise_draws: int = 6
    persistence_gamma: float = 0.7
    persistence_steps: int = 6

    def __post_init__(self) -> None:
        for name in ("n_points", "n_templates", "features", "n_neighbors", "weights", "metric", "scaling"):
            if len(getattr(self, name)) == 0:
                raise TuningError(f"{name} is a list of at least one choice, got an empty one")
        if min(self.n_points) < 2 or min(*self.n_templates, *self.n_neighbors, self.n_logits, self.n_noise_draws) < 1:
            raise TuningError(
                "n_points are at least 2, and n_templates, n_neighbors, n_logits and n_noise_draws at least 1, got "
                f"{self.n_points}, {self.n_templates}, {self.n_neighbors}, {self.n_logits} and {self.n_noise_draws}"
            )
        if not 0 <= self.tolerance <= 1:
            raise TuningError(f"tolerance is an AUROC difference in [0, 1], got {self.tolerance}")
        self._check_names()
        for _ in self.configs():  # each is checked as it is made
            pass

    def _check_names(self) -> None:
        families = {name for combination in self.features for name in combination}
        for place, named, known in (
            ("features", families, set(FEATURES)),
            ("weights", set(self.weights), set(get_args(Weights))),
            ("metric", set(self.metric), set(get_args(Metric))),
            ("scaling", set(self.scaling), set(get_args(Scaling))),
        ):
            if unknown := sorted(named - known):
                raise TuningError(f"{place} has unknown names {unknown}; the known ones are {sorted(known)}")

    @property
    def observed_options(self) -> dict[str, object]:
        """All that observations depend on; the other choices only look at them differently."""
        widest = self.widest()
        needs = sorted({family.needs for family in families_of(widest)})
        options: dict[str, object] = {"alphas": widest.alphas, "n_templates": widest.n_templates, "needs": needs}
        if needs != ["curves"]:
            options |= {
                name: getattr(widest, name)
                for name in (
                    "noise_sigmas",
                    "n_noise_draws",
                    "noise_seed",
                    "persistence_gamma",
                    "persistence_steps",
                )
            }
        return options

    def configs(self) -> Iterator[DetectorConfig]:
        """Every combination."""
        names = ("features", "n_points", "n_templates", "scaling", "metric", "n_neighbors", "weights")
        for features, n_points, n_templates, scaling, metric, k, weights in product(*(getattr(self, n) for n in names)):
            yield replace(
                self._base(),
                alphas=alphas_of(n_points),
                n_templates=n_templates,
                features=features,
                scaling=scaling,
                metric=metric,
                n_neighbors=k,
                weights=weights,
            )

    def widest(self) -> DetectorConfig:
        """One configuration whose observation holds all that any combination needs."""
        alphas = sorted({alpha for n_points in self.n_points for alpha in alphas_of(n_points)})
        families = {name for combination in self.features for name in combination}
        return replace(
            self._base(), alphas=tuple(alphas), n_templates=max(self.n_templates), features=tuple(sorted(families))
        )

    def _base(self) -> DetectorConfig:
        return DetectorConfig(
            alphas=(0.0, 1.0),
            target_fpr=self.target_fpr,
            n_logits=self.n_logits,
            noise_sigmas=self.noise_sigmas,
            n_noise_draws=self.n_noise_draws,
            persistence_gamma=self.persistence_gamma,
            persistence_steps=self.persistence_steps,
        )


def alphas_of(n_points: int) -> tuple[float, ...]:
    """Points evenly from image to template, both included, rounded so that nested grids share their points."""
    return tuple(round(index / (n_points - 1), 9) for index in range(n_points))


def rows_per_image(config: DetectorConfig) -> int:
    """Rows that one image costs: itself, the points between the ends of each path, and the noisy copies.

    For persistence the most that bracketing takes if its first bracket holds the answer.
    """
    needs = {family.needs for family in families_of(config)}
    n_inner = sum(0 < alpha < 1 for alpha in config.alphas)
    n_noisy = len(config.noise_sigmas) * config.n_noise_draws * ("noise" in needs)
    n_bracketing = (1 + config.n_noise_draws * (2 + config.persistence_steps)) * ("persistence" in needs)
    return 1 + config.n_templates * n_inner + n_noisy + n_bracketing


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


def trial_count(grid: DetectorGrid) -> int:
    """How many combinations a grid has."""
    return sum(1 for _ in grid.configs())


__all__ = [
    "DetectorGrid",
    "LabelledObservation",
    "Rotation",
    "Trial",
    "TuningError",
    "alphas_of",
    "best_trial",
    "rows_per_image",
    "run_trials",
    "trial_count",
]
