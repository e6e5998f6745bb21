"""The detector: fit it on images of both kinds, calibrate it on natural ones, ask it about any.

The page to read first: `detect` is the whole method in a few lines, from images to verdicts.
"""

import math
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from modeguard.detector.calibration import conformal_p_values, is_flagged, is_judged, smallest_calibration_set
from modeguard.detector.config import DetectorConfig
from modeguard.detector.errors import DetectorInputError
from modeguard.detector.features import extract_features, families_of, questions_of
from modeguard.detector.questions import Curves, LossCurves, Observation, observe
from modeguard.detector.records import Leaf, check_shapes
from modeguard.detector.rows import Classifier, Counted
from modeguard.detector.scorers import References, Scorer
from modeguard.detector.templates import ClassTemplates
from modeguard.detector.verdict import NO_TEMPLATE, NOT_FINITE, CurvesShown, CurveValues, NoVerdict, Verdict


@dataclass(frozen=True, slots=True, eq=False)
class Detector:
    """Everything that is needed, beside the classifier, to judge an image.

    Attributes:
        config: the choices it was fitted with.
        templates: far ends of the paths.
        scorer: fitted on natural and adversarial images.
        calibration_scores: (n_calibration,) float64, natural images only, ascending.
    """

    config: DetectorConfig
    templates: ClassTemplates
    scorer: Scorer
    calibration_scores: Annotated[Tensor, Leaf("n_calibration", torch.float64)]

    def __post_init__(self) -> None:
        check_shapes(self)
        scores = self.calibration_scores
        if not bool(scores.isfinite().all()) or bool((scores.diff() < 0).any()):
            raise DetectorInputError("calibration_scores are one ascending row of finite numbers")

    @property
    def is_differentiable(self) -> bool:
        """Whether an attack can follow the score's gradient to the image."""
        families = families_of(self.config)
        return self.scorer.is_differentiable and all(family.is_differentiable for family in families)


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Verdicts on n images.

    Attributes:
        score: (n,) float64, any real number, higher is more adversarial; NaN where abstained.
        p_value: (n,) float64 in (0, 1], split-conformal against natural calibration images; NaN where abstained.
        is_flagged: (n,) bool, p_value <= target_fpr; False where abstained, so look at `is_abstained` first.
        is_abstained: (n,) bool, there is no verdict: the predicted class has no template where one is needed, or the
            classifier's answer is not finite.
        has_template: (n,) bool, the predicted class has templates.
        predicted: (n,) int64, the classifier's class.
        alphas: points of the loss curves; empty where the detector asks for none.
        curves: the loss curves that explain the verdicts; None where the detector asks for none.
        n_rows: rows that went through the classifier; 0 where an observation was at hand.
    """

    score: Tensor
    p_value: Tensor
    is_flagged: Tensor
    is_abstained: Tensor
    has_template: Tensor
    predicted: Tensor
    alphas: tuple[float, ...]
    curves: LossCurves | None
    n_rows: int

    @property
    def reasons(self) -> list[NoVerdict | None]:
        """Why there is no verdict, one reason an image; None where there is one."""
        needs_template = self.curves is not None  # without curves no template is looked at, so none can be missing
        pairs = zip(self.is_abstained.tolist(), self.has_template.tolist(), strict=True)
        return [
            None if not is_abstained else NO_TEMPLATE if needs_template and not has_template else NOT_FINITE
            for is_abstained, has_template in pairs
        ]

    def verdicts(self, *, with_curves: bool = False) -> list[Verdict]:
        """The same in plain values, one verdict an image.

        Args:
            with_curves: give the loss curves of images whose predicted class has templates.
        """
        scores, p_values, flagged = self.score.tolist(), self.p_value.tolist(), self.is_flagged.tolist()
        return [
            Verdict(
                predicted=predicted,
                score=None if reason else scores[index],
                p_value=None if reason else p_values[index],
                is_flagged=None if reason else flagged[index],
                reason=reason,
                curves=self._shown(index) if with_curves else None,
            )
            for index, (predicted, reason) in enumerate(zip(self.predicted.tolist(), self.reasons, strict=True))
        ]

    def _shown(self, index: int) -> CurvesShown | None:
        if self.curves is None or not bool(self.has_template[index]):
            return None
        return CurvesShown(self.alphas, _finite(self.curves.losses[index]), _finite(self.curves.margins[index]))


@dataclass(frozen=True, slots=True, eq=False)
class FitSet:
    """Images that the scorer is fitted on.

    Attributes:
        images: (n, c, h, w) pixels in [0, 1].
        is_adversarial: (n,) bool, both kinds present.
        source: (n,) int64, see `References`; None where no two images belong together.
    """

    images: Tensor
    is_adversarial: Tensor
    source: Tensor | None = None


def fit(
    config: DetectorConfig,
    classifier: Classifier,
    templates: ClassTemplates,
    fit_set: FitSet,
    calibration_images: Tensor,
) -> Detector:
    """Fit the scorer and calibrate the threshold.

    Args:
        config: the choices.
        classifier: see `Classifier`.
        templates: at least `config.n_templates` a class.
        fit_set: natural and adversarial images.
        calibration_images: (m, c, h, w) natural images, none of them in the fit set.

    Raises:
        DetectorInputError: if there are too few calibration images for the target FPR, or one kind of image only.
    """
    used, questions = templates.first(config.n_templates), questions_of(config)
    observation = observe(questions, classifier, fit_set.images, used)
    source = torch.arange(len(fit_set.images)) if fit_set.source is None else fit_set.source
    calibration = observe(questions, classifier, calibration_images, used)
    return fit_observed(config, used, references_of(config, observation, fit_set.is_adversarial, source), calibration)


def references_of(
    config: DetectorConfig, observation: Observation, is_adversarial: Tensor, source: Tensor
) -> References:
    """What a scorer is fitted on: the images among those observed that can be judged.

    Args:
        config: the choices.
        observation: of n images.
        is_adversarial: (n,) bool.
        source: (n,) int64, see `References`.
    """
    features = extract_features(config, observation)
    kept = is_judged(features)
    return References(
        features=features[kept].to(torch.float64),
        is_adversarial=is_adversarial.to(kept.device, torch.bool)[kept],
        predicted=observation.at_image.predicted[kept],
        source=source.to(kept.device)[kept],
    )


def fit_observed(
    config: DetectorConfig, templates: ClassTemplates, references: References, calibration: Observation
) -> Detector:
    """`fit` for images that were observed already.

    Args:
        config: the choices.
        templates: what they were observed with.
        references: what the scorer is fitted on.
        calibration: of natural images; those that cannot be judged are left out, as `detect` abstains on them.

    Raises:
        DetectorInputError: see `fit`.
    """
    features = extract_features(config, calibration)
    natural = features[is_judged(features)]
    needed = smallest_calibration_set(config.target_fpr)
    if len(natural) < needed:
        raise DetectorInputError(
            f"a target FPR of {config.target_fpr} needs at least {needed} natural calibration images whose class has "
            f"templates, got {len(natural)}; add images or raise target_fpr"
        )
    scorer = config.scorer.fit(references)
    return Detector(config, templates, scorer, scorer.score(natural).sort().values)


def detect(detector: Detector, classifier: Classifier, images: Tensor) -> Detections:
    """Say of each image whether it is adversarial, and how sure that is.

    Differentiable with respect to the images where the detector is.

    Args:
        detector: a fitted detector.
        classifier: the classifier that it was fitted for; see `observe` for how many rows it gets at a time.
        images: (n, c, h, w) pixels in [0, 1], on the detector's device; n may be 0.

    Raises:
        DetectorInputError: if the images have another shape or type than the classifier takes.
    """
    counted = Counted(classifier)
    observation = observe(questions_of(detector.config), counted, images, detector.templates)
    return replace(judge(detector, observation), n_rows=counted.n_rows)


def judge(detector: Detector, observation: Observation) -> Detections:
    """`detect` for images that were observed already, by a question for each that the detector needs.

    Args:
        detector: a fitted detector.
        observation: of n images, on the detector's device.
    """
    score = score_of(detector, observation)
    p_value = conformal_p_values(score, detector.calibration_scores).masked_fill(score.isnan(), math.nan)
    predicted = observation.at_image.predicted
    alphas, curves = _curves_of(detector, observation)
    return Detections(
        score=score,
        p_value=p_value,
        is_flagged=is_flagged(p_value, detector.config.target_fpr),
        is_abstained=score.isnan(),
        has_template=detector.templates.rows_of(predicted) >= 0,
        predicted=predicted,
        alphas=alphas,
        curves=curves,
        n_rows=0,
    )


def score_of(detector: Detector, observation: Observation) -> Tensor:
    """Scores (n,) float64 of images that were observed; NaN for those that are not judged."""
    features = extract_features(detector.config, observation)
    judged = is_judged(features)
    score = detector.calibration_scores.new_full((len(features),), math.nan)
    return score.masked_scatter(judged, detector.scorer.score(features[judged]))


def _curves_of(detector: Detector, observation: Observation) -> tuple[tuple[float, ...], LossCurves | None]:
    question = questions_of(detector.config).get("curves")
    if not isinstance(question, Curves):
        return (), None
    asked = observation.questions["curves"]
    return question.alphas, asked.selected(observation.answers["curves"], question, detector.config.n_templates)


def _finite(curves: Tensor) -> CurveValues:
    return tuple(tuple(value if math.isfinite(value) else None for value in curve) for curve in curves.tolist())
