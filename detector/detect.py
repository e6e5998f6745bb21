"""The detector: fit it on images of both kinds, calibrate it on natural ones, ask it about any.

The page to read first: `detect` is the whole method in a few lines, from images to verdicts.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from modeguard.detector.calibration import conformal_p_values, smallest_calibration_set
from modeguard.detector.config import DetectorConfig
from modeguard.detector.errors import DetectorInputError
from modeguard.detector.features import extract_features, observe
from modeguard.detector.questions.curves import LossCurves
from modeguard.detector.rows import ROWS_PER_CALL, Classifier
from modeguard.detector.scorers.neighbors import Neighbours, fit_neighbours
from modeguard.detector.templates import ClassTemplates

NO_TEMPLATE, NOT_FINITE = "no_template_for_class", "score_not_finite"
"""Why nothing can be said of an image; the command line and the server answer with these words."""


@dataclass(frozen=True, slots=True, eq=False)
class Detector:
    """Everything that is needed, beside the classifier, to judge an image.

    Attributes:
        config: the choices it was fitted with.
        templates: far ends of the paths.
        neighbours: reference features of natural and adversarial images.
        calibration_scores: (n_calibration,) float64, natural images only, ascending.
    """

    config: DetectorConfig
    templates: ClassTemplates
    neighbours: Neighbours
    calibration_scores: Tensor

    def to(self, device: torch.device | str) -> "Detector":
        """The same detector on another device."""
        return replace(
            self,
            templates=self.templates.to(device),
            neighbours=self.neighbours.to(device),
            calibration_scores=self.calibration_scores.to(device),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Verdicts on n images.

    Attributes:
        score: (n,) float64 in [0, 1], higher is more adversarial; NaN where abstained.
        p_value: (n,) float64 in (0, 1], split-conformal against natural calibration images; NaN where abstained.
        is_adversarial: (n,) bool, p_value <= target_fpr; False where abstained, so look at `is_abstained` first.
        is_abstained: (n,) bool, nothing can be said: the predicted class has no template, or the classifier's answer
            is not finite.
        has_template: (n,) bool, the predicted class has templates.
        predicted: (n,) int64, the classifier's class.
        curves: the loss curves that explain the verdict.
        n_rows: rows that went through the classifier.
    """

    score: Tensor
    p_value: Tensor
    is_adversarial: Tensor
    is_abstained: Tensor
    has_template: Tensor
    predicted: Tensor
    curves: LossCurves
    n_rows: int

    @property
    def reasons(self) -> list[str | None]:
        """Of each image why nothing can be said, `NO_TEMPLATE` or `NOT_FINITE`; None where there is a verdict."""
        pairs = zip(self.is_abstained.tolist(), self.has_template.tolist(), strict=True)
        return [
            None if not is_abstained else NOT_FINITE if has_template else NO_TEMPLATE
            for is_abstained, has_template in pairs
        ]


@dataclass(frozen=True, slots=True, eq=False)
class FitSet:
    """Images that the neighbours are made of.

    Attributes:
        images: (n_reference, c, h, w) pixels in [0, 1].
        is_adversarial: (n_reference,) bool, both kinds present.
    """

    images: Tensor
    is_adversarial: Tensor


def fit_detector(
    config: DetectorConfig,
    classifier: Classifier,
    templates: ClassTemplates,
    fit_set: FitSet,
    calibration_images: Tensor,
    *,
    rows_per_call: int = ROWS_PER_CALL,
) -> Detector:
    """Fit the neighbours and calibrate the threshold.

    Args:
        config: the choices.
        classifier: see `Classifier`.
        templates: at least `config.n_templates` a class.
        fit_set: natural and adversarial images.
        calibration_images: (m, c, h, w) natural images, none of them in the fit set.
        rows_per_call: bound on the rows of one call of the classifier.

    Raises:
        DetectorInputError: if there are too few calibration images for the target FPR, or one kind of image only.
    """
    used = templates.first(config.n_templates)

    def features_of(images: Tensor) -> Tensor:
        return extract_features(config, observe(config, classifier, images, used, rows_per_call=rows_per_call))

    return detector_from_features(
        config, used, features_of(fit_set.images), fit_set.is_adversarial, features_of(calibration_images)
    )


def detector_from_features(
    config: DetectorConfig,
    templates: ClassTemplates,
    features: Tensor,
    is_adversarial: Tensor,
    calibration_features: Tensor,
) -> Detector:
    """`fit_detector` for features that are computed already.

    Images whose features are not finite (their predicted class has no template, or the classifier's answer is not
    finite) are left out of both sets, as `detect` abstains on them.

    Args:
        config: the choices.
        templates: what the features were computed with.
        features: (n_reference, n_features).
        is_adversarial: (n_reference,) bool.
        calibration_features: (m, n_features), natural images.

    Raises:
        DetectorInputError: see `fit_detector`.
    """
    is_usable = features.isfinite().all(dim=1)
    natural = calibration_features[calibration_features.isfinite().all(dim=1)]
    needed = smallest_calibration_set(config.target_fpr)
    if len(natural) < needed:
        raise DetectorInputError(
            f"a target FPR of {config.target_fpr} needs at least {needed} natural calibration images whose class has "
            f"templates, got {len(natural)}; add images or raise target_fpr"
        )
    neighbours = fit_neighbours(
        features[is_usable],
        is_adversarial[is_usable],
        n_neighbors=config.n_neighbors,
        weights=config.weights,
        metric=config.metric,
        scaling=config.scaling,
    )
    return Detector(config, templates, neighbours, neighbours.score(natural).sort().values)


def detect(
    detector: Detector, classifier: Classifier, images: Tensor, *, rows_per_call: int = ROWS_PER_CALL
) -> Detections:
    """Say of each image whether it is adversarial, and how sure that is.

    Differentiable with respect to the images where the configuration is (distance weights).

    Args:
        detector: a fitted detector.
        classifier: the classifier that it was fitted for.
        images: (n, c, h, w) pixels in [0, 1], on the detector's device; n may be 0.
        rows_per_call: bound on the rows of one call of the classifier.
    """
    observation = observe(detector.config, classifier, images, detector.templates, rows_per_call=rows_per_call)
    features = extract_features(detector.config, observation)
    is_judged = features.isfinite().all(dim=1)
    score = detector.calibration_scores.new_full((len(images),), float("nan"))
    score = score.masked_scatter(is_judged, detector.neighbours.score(features[is_judged]))
    p_value = conformal_p_values(score, detector.calibration_scores).masked_fill(~is_judged, float("nan"))
    return Detections(
        score=score,
        p_value=p_value,
        is_adversarial=p_value <= detector.config.target_fpr,
        is_abstained=~is_judged,
        has_template=detector.templates.rows_of(observation.curves.predicted) >= 0,
        predicted=observation.curves.predicted,
        curves=observation.curves,
        n_rows=observation.n_rows,
    )
