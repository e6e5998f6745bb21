"""What a detector is made of: the choices that the offline pipeline tunes and a bundle carries."""

import math
from dataclasses import dataclass

from modeguard.detector.calibration import smallest_calibration_set
from modeguard.detector.errors import DetectorInputError
from modeguard.detector.questions.curves import check_alphas
from modeguard.detector.scorers.neighbors import Metric, Scaling, Weights


@dataclass(frozen=True, slots=True)
class DetectorConfig:
    """Choices of one detector.

    Attributes:
        alphas: points of the path, ascending within [0, 1], 0 at the image and 1 at the template.
        n_templates: templates a class.
        features: names of feature families, see `detector.features.FEATURES`.
        n_logits: how many of the logits, in descending order, the family "sorted_logits" keeps at the most.
        n_neighbors, weights, metric, scaling: see `modeguard.detector.scorers.neighbors.fit_neighbours`.
        target_fpr: rate of natural images that may be called adversarial, within (0, 1).
        noise_sigmas: noise levels of the noise families, on the [0, 1] pixel scale.
        n_noise_draws: draws at each noise level.
        noise_seed: seed of those draws.
        persistence_gamma: fraction of the draws that must keep the class, within (0, 1).
        persistence_steps: bisections of the bracketing algorithm at the most.
    """

    alphas: tuple[float, ...]
    n_templates: int = 1
    features: tuple[str, ...] = ("loss_curve", "sorted_logits")
    n_logits: int = 100
    n_neighbors: int = 25
    weights: Weights = "distance"
    metric: Metric = "euclidean"
    scaling: Scaling = "standard"
    target_fpr: float = 0.05
    noise_sigmas: tuple[float, ...] = (0.02, 0.04, 0.08, 0.16)
    n_noise_draws: int = 6
    noise_seed: int = 0
    persistence_gamma: float = 0.7
    persistence_steps: int = 6

    def __post_init__(self) -> None:
        check_alphas(self.alphas)
        smallest_calibration_set(self.target_fpr)
        if min(self.n_templates, self.n_logits, self.n_neighbors, self.n_noise_draws) < 1:
            raise DetectorInputError(
                "n_templates, n_logits, n_neighbors and n_noise_draws are at least 1, got "
                f"{self.n_templates}, {self.n_logits}, {self.n_neighbors} and {self.n_noise_draws}"
            )
        if not 0 < self.persistence_gamma < 1 or self.persistence_steps < 1:
            raise DetectorInputError(
                "persistence_gamma is within (0, 1) and persistence_steps at least 1, got "
                f"{self.persistence_gamma} and {self.persistence_steps}"
            )
        if not self.features or len(set(self.features)) != len(self.features):
            raise DetectorInputError(f"features are one or more different families, got {self.features}")
        if not self.noise_sigmas or not all(0 < sigma < math.inf for sigma in self.noise_sigmas):
            raise DetectorInputError(f"noise levels are positive and finite, got {self.noise_sigmas}")
