"""The grid that a detector is chosen from: every combination of some choices, and what each costs in rows."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import get_args

from modeguard.detector import DetectorConfig, ModeguardError
from modeguard.detector.features import FEATURES, families_of
from modeguard.detector.scorers.neighbors import Metric, Scaling, Weights

__all__ = ["DetectorGrid", "TuningError", "alphas_of", "rows_per_image"]


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

    @property
    def n_configs(self) -> int:
        """How many combinations there are."""
        return sum(1 for _ in self.configs())

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
