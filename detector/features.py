"""Feature families: named ways to turn what the classifier said into numbers that neighbours are compared by.

To add one: write its function here or in a file of its own, and add one line to `FEATURES`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from modeguard.detector.config import DetectorConfig
from modeguard.detector.errors import DetectorInputError
from modeguard.detector.questions.curves import LossCurves, barrier_gaps, barrier_heights, loss_curves
from modeguard.detector.questions.noise import NoiseResponse, gaussian_draws, noise_response, persistence
from modeguard.detector.rows import ROWS_PER_CALL, Classifier, CountingClassifier
from modeguard.detector.templates import ClassTemplates

_FIRST_BRACKET = (0.05, 0.2)
_LARGEST_SIGMA = 10.0  # noise that leaves nothing of an image with pixels in [0, 1]
_LEAST_SIGMA = _LARGEST_SIGMA**-2
_LEAST_GAP = 0.1  # above the spacing of bfloat16 at logits below 16, so that rounding moves the feature little


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """Everything that feature families may look at, of n images.

    Attributes:
        curves: loss curves to the class templates.
        noise: answers under noise; None where no family asks for them.
        persistence: (n,) gamma-persistence; None where no family asks for it.
        n_rows: rows that went through the classifier for all of it.
    """

    curves: LossCurves
    noise: NoiseResponse | None
    persistence: Tensor | None
    n_rows: int


@dataclass(frozen=True, slots=True)
class FeatureFamily:
    """One named family.

    Attributes:
        extract: (observation, config) -> (n, n_features of the family).
        needs: what the classifier must be asked beside the loss curves.
    """

    extract: Callable[[Observation, DetectorConfig], Tensor]
    needs: Literal["curves", "noise", "persistence"] = "curves"


def _loss_curve(observation: Observation, _: DetectorConfig) -> Tensor:
    """Losses along the paths, seed section 4.2.1."""
    return observation.curves.losses.flatten(1)


def _margin_curve(observation: Observation, _: DetectorConfig) -> Tensor:
    """Logit margins of the predicted class along the paths: unlike the loss, they do not saturate."""
    return observation.curves.margins.flatten(1)


def _sorted_logits(observation: Observation, config: DetectorConfig) -> Tensor:
    """Logits in descending order, seed section 4.2.1."""
    logits = observation.curves.logits
    return logits.topk(min(config.n_logits, logits.shape[1]), dim=1).values


def _log_margin(observation: Observation, _: DetectorConfig) -> Tensor:
    """Logarithm of the gap between the two highest logits: attacks of least norm end where it is nearly nothing."""
    highest = observation.curves.logits.topk(2, dim=1).values
    return (highest[:, :1] - highest[:, 1:] + _LEAST_GAP).log()


def _barrier(observation: Observation, _: DetectorConfig) -> Tensor:
    """Barrier heights and gaps, seed section 4.2 and Figure 6."""
    return torch.cat([barrier_heights(observation.curves), barrier_gaps(observation.curves)], dim=1)


def _noise(observation: Observation) -> NoiseResponse:
    if observation.noise is None:
        raise DetectorInputError(
            "this observation was made without noise; observe it with a noise family in the config"
        )
    return observation.noise


def _persistence(observation: Observation, _: DetectorConfig) -> Tensor:
    """Logarithm of the gamma-persistence, Bell definition 4.2, within the bounds of the search."""
    if observation.persistence is None:
        raise DetectorInputError("this observation was made without persistence; observe it with that family")
    return observation.persistence.clamp(_LEAST_SIGMA, _LARGEST_SIGMA).log()[:, None]


def _stability(observation: Observation, _: DetectorConfig) -> Tensor:
    """Fraction of noisy copies that keep the class, Bell definition 4.1."""
    return _noise(observation).agreement


def _noise_margin(observation: Observation, _: DetectorConfig) -> Tensor:
    """Mean logit margin of the predicted class under noise: what stability rounds to yes or no."""
    return _noise(observation).margins


FEATURES: dict[str, FeatureFamily] = {
    "loss_curve": FeatureFamily(_loss_curve),
    "margin_curve": FeatureFamily(_margin_curve),
    "sorted_logits": FeatureFamily(_sorted_logits),
    "log_margin": FeatureFamily(_log_margin),
    "barrier": FeatureFamily(_barrier),
    "stability": FeatureFamily(_stability, needs="noise"),
    "noise_margin": FeatureFamily(_noise_margin, needs="noise"),
    "persistence": FeatureFamily(_persistence, needs="persistence"),
}


def families_of(config: DetectorConfig) -> list[FeatureFamily]:
    """The families that a configuration names.

    Raises:
        DetectorInputError: listing the known names when one is unknown.
    """
    unknown = [name for name in config.features if name not in FEATURES]
    if unknown:
        raise DetectorInputError(f"unknown feature families {unknown}; the known ones are {sorted(FEATURES)}")
    return [FEATURES[name] for name in config.features]


def observe(
    config: DetectorConfig,
    classifier: Classifier,
    images: Tensor,
    templates: ClassTemplates,
    *,
    rows_per_call: int = ROWS_PER_CALL,
) -> Observation:
    """Ask the classifier everything that the configuration's families need.

    Args:
        config: which points, templates and families.
        classifier: see `Classifier`.
        images: (n, c, h, w) pixels in [0, 1], on the device of the templates.
        templates: at least `config.n_templates` a class.
        rows_per_call: bound on the rows of one call of the classifier.
    """
    needs = {family.needs for family in families_of(config)}
    counted = CountingClassifier(classifier)
    used = templates.first(config.n_templates)
    curves = loss_curves(counted, images, used, config.alphas, rows_per_call=rows_per_call)
    noise = sigmas = None
    if needs & {"noise", "persistence"}:
        draws = gaussian_draws(classifier.input_shape, config.n_noise_draws, config.noise_seed).to(images)
    if "noise" in needs:
        noise = noise_response(
            counted, images, curves.predicted, draws, config.noise_sigmas, rows_per_call=rows_per_call
        )
    if "persistence" in needs:
        sigmas = persistence(
            counted,
            images,
            draws,
            gamma=config.persistence_gamma,
            max_steps=config.persistence_steps,
            sigma_range=_FIRST_BRACKET,
            max_sigma=_LARGEST_SIGMA,
            rows_per_call=rows_per_call,
        )
    return Observation(curves, noise, sigmas, counted.n_rows)


def extract_features(config: DetectorConfig, observation: Observation) -> Tensor:
    """Feature vectors, the families side by side in the configuration's order.

    Args:
        config: its alphas and templates pick from what was observed.
        observation: of n images.

    Returns:
        (n, n_features) float32 or wider; NaN for an image whose predicted class has no template.
    """
    selected = replace(observation, curves=observation.curves.select(config.alphas, config.n_templates))
    parts = [family.extract(selected, config) for family in families_of(config)]
    return torch.cat([part.to(selected.curves.logits.dtype) for part in parts], dim=1)
