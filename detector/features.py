"""Feature families: named ways to turn what the classifier said into numbers that neighbours are compared by.

To add one: write its function here or in a file of its own, and add one line to `FEATURES`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from detector.classifier import ROWS_PER_CALL, Classifier
from detector.config import DetectorConfig
from detector.errors import DetectorInputError
from detector.loss_curve import LossCurves, barrier_gaps, barrier_heights, loss_curves
from detector.stability import NoiseResponse, gaussian_draws, noise_response
from detector.templates import ClassTemplates


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """Everything that feature families may look at, of n images.

    Attributes:
        curves: loss curves to the class templates.
        noise: answers under noise; None where no family asks for them.
    """

    curves: LossCurves
    noise: NoiseResponse | None

    @property
    def n_rows(self) -> int:
        """Rows that went through the classifier."""
        return self.curves.n_rows + (self.noise.n_rows if self.noise is not None else 0)


@dataclass(frozen=True, slots=True)
class FeatureFamily:
    """One named family.

    Attributes:
        extract: (observation, config) -> (n, n_features of the family).
        needs_noise: whether the classifier must be asked about noisy images too.
    """

    extract: Callable[[Observation, DetectorConfig], Tensor]
    needs_noise: bool = False


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


def _barrier(observation: Observation, _: DetectorConfig) -> Tensor:
    """Barrier heights and gaps, seed section 4.2 and Figure 6."""
    return torch.cat([barrier_heights(observation.curves), barrier_gaps(observation.curves)], dim=1)


def _noise(observation: Observation) -> NoiseResponse:
    if observation.noise is None:
        raise DetectorInputError(
            "this observation was made without noise; observe it with a noise family in the config"
        )
    return observation.noise


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
    "barrier": FeatureFamily(_barrier),
    "stability": FeatureFamily(_stability, needs_noise=True),
    "noise_margin": FeatureFamily(_noise_margin, needs_noise=True),
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
    families = families_of(config)
    used = templates.first(config.n_templates)
    curves = loss_curves(classifier, images, used, config.alphas, rows_per_call=rows_per_call)
    if not any(family.needs_noise for family in families):
        return Observation(curves, None)
    draws = gaussian_draws(classifier.input_shape, config.n_noise_draws, config.noise_seed).to(images)
    noise = noise_response(
        classifier, images, curves.predicted, draws, config.noise_sigmas, rows_per_call=rows_per_call
    )
    return Observation(curves, noise)


def extract_features(config: DetectorConfig, observation: Observation) -> Tensor:
    """Feature vectors, the families side by side in the configuration's order.

    Args:
        config: its alphas and templates pick from what was observed.
        observation: of n images.

    Returns:
        (n, n_features) float32 or wider; NaN for an image whose predicted class has no template.
    """
    selected = Observation(observation.curves.select(config.alphas, config.n_templates), observation.noise)
    parts = [family.extract(selected, config) for family in families_of(config)]
    return torch.cat([part.to(selected.curves.logits.dtype) for part in parts], dim=1)
