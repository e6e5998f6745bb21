"""Feature families: named ways to turn what the classifier said into the numbers that images are compared by.

To add one: write its function here or in a file of its own, and add one line to `FEATURES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modeguard.detector.config import DetectorConfig
from modeguard.detector.errors import DetectorInputError
from modeguard.detector.questions import (
    QUESTIONS,
    LossCurves,
    NoiseAnswer,
    Observation,
    Persistence,
    PersistenceAnswer,
    barrier_gaps,
    barrier_heights,
)

_LEAST_GAP = 0.1  # above the spacing of bfloat16 at logits below 16, so that rounding moves the feature little


@dataclass(frozen=True, slots=True)
class FeatureFamily:
    """One named family.

    Attributes:
        extract: (observation, config) -> (n, n_features of the family).
        questions: names of the questions that it needs answered, beside the logits at the image.
        is_differentiable: whether the numbers change smoothly with the image.
    """

    extract: Callable[[Observation, DetectorConfig], Tensor]
    questions: frozenset[str] = frozenset()
    is_differentiable: bool = True


def _curves(observation: Observation) -> LossCurves:
    curves: LossCurves = observation.answers["curves"]
    return curves


def _noise(observation: Observation) -> NoiseAnswer:
    noise: NoiseAnswer = observation.answers["noise"]
    return noise


def _loss_curve(observation: Observation, _: DetectorConfig) -> Tensor:
    """Losses along the paths, the paper's section 4.2.1."""
    return _curves(observation).losses.flatten(1)


def _margin_curve(observation: Observation, _: DetectorConfig) -> Tensor:
    """Logit margins of the predicted class along the paths: unlike the loss, they do not saturate."""
    return _curves(observation).margins.flatten(1)


def _barrier(observation: Observation, _: DetectorConfig) -> Tensor:
    """Barrier heights and gaps, the paper's section 4.2 and Figure 6."""
    curves = _curves(observation)
    return torch.cat([barrier_heights(curves), barrier_gaps(curves)], dim=1)


def _sorted_logits(observation: Observation, config: DetectorConfig) -> Tensor:
    """Logits in descending order, the paper's section 4.2.1."""
    logits = observation.at_image.logits
    return logits.topk(min(config.n_logits, logits.shape[1]), dim=1).values


def _log_margin(observation: Observation, _: DetectorConfig) -> Tensor:
    """Logarithm of the gap between the two highest logits: attacks of least norm end where it is nearly nothing."""
    highest = observation.at_image.logits.topk(2, dim=1).values
    return (highest[:, :1] - highest[:, 1:] + _LEAST_GAP).log()


def _stability(observation: Observation, _: DetectorConfig) -> Tensor:
    """Fraction of noisy copies that keep the class, Bell definition 4.1."""
    return _noise(observation).agreement


def _noise_margin(observation: Observation, _: DetectorConfig) -> Tensor:
    """Mean logit margin of the predicted class under noise: what stability rounds to yes or no."""
    return _noise(observation).margins


def _persistence(observation: Observation, config: DetectorConfig) -> Tensor:
    """Logarithm of the gamma-persistence, Bell definition 4.2, within the bounds of the search."""
    question: Persistence = questions_of(config)["persistence"]
    answer: PersistenceAnswer = observation.answers["persistence"]
    return answer.sigma.clamp(question.min_sigma, question.max_sigma).log()[:, None]


FEATURES: dict[str, FeatureFamily] = {
    "loss_curve": FeatureFamily(_loss_curve, frozenset({"curves"})),
    "margin_curve": FeatureFamily(_margin_curve, frozenset({"curves"})),
    "barrier": FeatureFamily(_barrier, frozenset({"curves"})),
    "sorted_logits": FeatureFamily(_sorted_logits),
    "log_margin": FeatureFamily(_log_margin),
    "stability": FeatureFamily(_stability, frozenset({"noise"}), is_differentiable=False),
    "noise_margin": FeatureFamily(_noise_margin, frozenset({"noise"})),
    "persistence": FeatureFamily(_persistence, frozenset({"persistence"}), is_differentiable=False),
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


def questions_of(config: DetectorConfig) -> dict[str, Any]:
    """The questions that a configuration's families need, with its options, in the order of `QUESTIONS`."""
    needed = frozenset().union(*(family.questions for family in families_of(config)))
    return {name: config.questions.get(name) or kind() for name, kind in QUESTIONS.items() if name in needed}


def rows_per_image(config: DetectorConfig) -> int:
    """Rows that an image costs at the most: its own, and those of the questions."""
    costs: list[int] = [question.n_rows(config.n_templates) for question in questions_of(config).values()]
    return 1 + sum(costs)


def extract_features(config: DetectorConfig, observation: Observation) -> Tensor:
    """Feature vectors, the families side by side in the configuration's order.

    Args:
        config: which families; the observation may hold answers to more than its questions.
        observation: of n images.

    Returns:
        (n, n_features) float32 or wider; NaN for an image that cannot be judged, such as one whose predicted class
        has no template where a family needs curves.

    Raises:
        DetectorInputError: if a family is unknown, or the observation does not hold what the families need.
    """
    selected = Observation(questions_of(config), observation.at_image, _answers(config, observation))
    parts = [family.extract(selected, config) for family in families_of(config)]
    return torch.cat([part.to(observation.at_image.logits.dtype) for part in parts], dim=1)


def _answers(config: DetectorConfig, observation: Observation) -> dict[str, object]:
    needed = questions_of(config)
    if missing := sorted(set(needed) - set(observation.answers)):
        raise DetectorInputError(
            f"the families {list(config.features)} need answers to {missing}, which this observation was made without"
        )
    return {
        name: observation.questions[name].selected(observation.answers[name], question, config.n_templates)
        for name, question in needed.items()
    }
