"""The grid that a detector is chosen from: every combination of some choices."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import get_args

from modeguard.detector import FEATURES, DetectorConfig, ModeguardError, questions_of
from modeguard.detector.paths import evenly_spaced
from modeguard.detector.questions import AnyQuestion, Curves, Noise, Persistence
from modeguard.detector.scorers import SCORERS, Metric, NeighborsOptions, ScalingName, ScorerOptions, Weights


class TuningError(ModeguardError, ValueError):
    """A grid that makes no sense, or data that no combination of it can be tried on."""


_MOST_POINTS = 1_000


@dataclass(frozen=True, slots=True)
class DetectorGrid:
    """What to choose from; every combination is tried.

    Attributes:
        n_points: numbers of points on the path, image and template included, each at least 2.
        n_templates: numbers of templates a class.
        features: combinations of feature families.
        scorers: names in `SCORERS`; the four choices below are of "neighbors", others have their defaults.
        n_neighbors, weights, metric, scaling: see `NeighborsOptions`.
        tolerance: mean AUROC that may be given up for a cheaper detector, in [0, 1].
        target_fpr: rate of natural images that the detector may flag.
        n_logits: logits that "sorted_logits" keeps at the most.
        noise_sigmas, n_noise_draws: see `Noise`; the draws are also those of persistence.
        persistence_gamma, persistence_steps: see `Persistence`.
    """

    n_points: tuple[int, ...] = (8,)
    n_templates: tuple[int, ...] = (1,)
    features: tuple[tuple[str, ...], ...] = (("loss_curve", "sorted_logits"),)
    scorers: tuple[str, ...] = (NeighborsOptions.kind,)
    n_neighbors: tuple[int, ...] = (5, 15, 25)
    weights: tuple[Weights, ...] = ("distance",)
    metric: tuple[Metric, ...] = ("euclidean",)
    scaling: tuple[ScalingName, ...] = ("standard",)
    tolerance: float = 0.001
    target_fpr: float = 0.05
    n_logits: int = 100
    noise_sigmas: tuple[float, ...] = (0.02, 0.04, 0.08, 0.16)
    n_noise_draws: int = 6
    persistence_gamma: float = 0.7
    persistence_steps: int = 6

    def __post_init__(self) -> None:
        for name in ("n_points", "n_templates", "features", "scorers", "n_neighbors", "weights", "metric", "scaling"):
            if len(getattr(self, name)) == 0:
                raise TuningError(f"{name} is a list of at least one choice, got an empty one")
        if min(self.n_points) < 2 or min(*self.n_templates, *self.n_neighbors, self.n_logits, self.n_noise_draws) < 1:
            raise TuningError(
                "n_points are at least 2, and n_templates, n_neighbors, n_logits and n_noise_draws at least 1, got "
                f"{self.n_points}, {self.n_templates}, {self.n_neighbors}, {self.n_logits} and {self.n_noise_draws}"
            )
        if max(self.n_points) > _MOST_POINTS:
            raise TuningError(f"n_points are at most {_MOST_POINTS}, each costs a row, got {self.n_points}")
        if not 0 <= self.tolerance <= 1:
            raise TuningError(f"tolerance is an AUROC difference in [0, 1], got {self.tolerance}")
        self._check_names()
        for _ in self.configs():  # each is checked as it is made
            pass
        self.questions()

    def _check_names(self) -> None:
        families = {name for combination in self.features for name in combination}
        for place, named, known in (
            ("features", families, set(FEATURES)),
            ("scorers", set(self.scorers), set(SCORERS)),
            ("weights", set(self.weights), set(get_args(Weights))),
            ("metric", set(self.metric), set(get_args(Metric))),
            ("scaling", set(self.scaling), set(get_args(ScalingName))),
        ):
            if unknown := sorted(named - known):
                raise TuningError(f"{place} has unknown names {unknown}; the known ones are {sorted(known)}")

    def configs(self) -> Iterator[DetectorConfig]:
        """Every combination."""
        for features, n_points, n_templates in product(self.features, self.n_points, self.n_templates):
            config = self._config(features, n_points, n_templates)
            for scorer in self._scorers():
                yield replace(config, scorer=scorer)

    @property
    def n_configs(self) -> int:
        """How many combinations there are."""
        return sum(1 for _ in self.configs())

    def questions(self) -> dict[str, AnyQuestion]:
        """Questions whose answers hold all that any combination needs."""
        asked: dict[str, AnyQuestion] = {}
        for features, n_points in product(self.features, self.n_points):
            for name, question in questions_of(self._config(features, n_points, 1)).items():
                asked[name] = asked[name].joined(question) if name in asked else question
        return asked

    def _scorers(self) -> Iterator[ScorerOptions]:
        for name in self.scorers:
            if name == NeighborsOptions.kind:
                choices = product(self.scaling, self.metric, self.n_neighbors, self.weights)
                for scaling, metric, n_neighbors, weights in choices:
                    yield NeighborsOptions(n_neighbors, weights, metric, scaling)
            else:
                yield SCORERS[name].options()

    def _config(self, features: tuple[str, ...], n_points: int, n_templates: int) -> DetectorConfig:
        config = DetectorConfig(
            features=features,
            questions={
                "curves": Curves(evenly_spaced(n_points)),
                "noise": Noise(self.noise_sigmas, self.n_noise_draws),
                "persistence": Persistence(
                    self.persistence_gamma, max_steps=self.persistence_steps, n_draws=self.n_noise_draws
                ),
            },
            n_templates=n_templates,
            n_logits=self.n_logits,
            target_fpr=self.target_fpr,
        )
        return replace(config, questions=questions_of(config))  # without what its families do not ask
