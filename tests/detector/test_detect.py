"""The detector as a whole: verdicts, abstention, invariance, gradients, and refusals at fitting."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from modeguard.detector import (
    FEATURES,
    ClassTemplates,
    Detector,
    DetectorConfig,
    DetectorInputError,
    FitSet,
    detect,
    extract_features,
    fit_detector,
    observe,
)
from modeguard.detector.detect import NO_TEMPLATE, NOT_FINITE
from tests.conftest import ToyClassifier, toy_templates

EVERY_FAMILY = tuple(FEATURES)


def test_verdicts_follow_from_scores(fitted: Detector, classifier: ToyClassifier, images: Tensor) -> None:
    found = detect(fitted, classifier, images)
    below = (fitted.calibration_scores[None] >= found.score[:, None]).sum(dim=1)
    torch.testing.assert_close(found.p_value, (below + 1).double() / (len(fitted.calibration_scores) + 1))
    assert torch.equal(found.is_adversarial, found.p_value <= fitted.config.target_fpr)
    assert torch.equal(found.predicted, classifier(images).argmax(dim=1))
    assert ((found.score >= 0) & (found.score <= 1)).all()


def test_calibration_images_are_flagged_at_the_target_rate(fitted: Detector, classifier: ToyClassifier) -> None:
    natural = torch.rand((200, 1, 4, 4), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    flagged = detect(fitted, classifier, natural).is_adversarial.double().mean()
    assert float(flagged) <= fitted.config.target_fpr


def test_score_does_not_depend_on_the_batch(fitted: Detector, classifier: ToyClassifier, images: Tensor) -> None:
    together = detect(fitted, classifier, images, rows_per_call=50)
    alone = torch.cat([detect(fitted, classifier, image[None]).score for image in images])
    torch.testing.assert_close(together.score, alone, atol=1e-9, rtol=0)


def test_an_empty_batch_has_no_verdicts(fitted: Detector, classifier: ToyClassifier, images: Tensor) -> None:
    found = detect(fitted, classifier, images[:0])
    assert found.score.shape == found.p_value.shape == found.is_abstained.shape == (0,)


def test_images_of_a_class_without_template_get_no_verdict(classifier: ToyClassifier, images: Tensor) -> None:
    templates = toy_templates(classifier, classes=torch.tensor([0, 1]))
    config = DetectorConfig(alphas=(0.0, 0.5), n_neighbors=3, target_fpr=0.2)
    detector = fit_detector(config, classifier, templates, FitSet(images, torch.arange(64) % 2 == 0), images)
    found = detect(detector, classifier, images)
    assert torch.equal(found.is_abstained, found.predicted >= 2)
    assert found.score[found.is_abstained].isnan().all()
    assert found.p_value[found.is_abstained].isnan().all()
    assert not found.is_adversarial[found.is_abstained].any()
    assert not found.score[~found.is_abstained].isnan().any()
    assert found.reasons == [NO_TEMPLATE if label >= 2 else None for label in found.predicted.tolist()]


def test_cost_is_what_the_classifier_was_called_for(
    classifier: ToyClassifier, templates: ClassTemplates, images: Tensor
) -> None:
    config = DetectorConfig(alphas=(0.0, 0.5, 1.0), n_noise_draws=3, noise_sigmas=(0.1, 0.2))
    for features, expected in (
        (("loss_curve",), 64 * (1 + 1)),
        (("loss_curve", "stability", "noise_margin"), 64 * (1 + 1 + 2 * 3)),
        (EVERY_FAMILY, None),  # bracketing takes as long as it takes
    ):
        classifier.n_rows = 0
        observation = observe(replace(config, features=features), classifier, images, templates)
        assert observation.n_rows == classifier.n_rows
        assert expected in (None, observation.n_rows)


def test_an_answer_that_is_not_finite_gets_no_verdict(
    fitted: Detector, classifier: ToyClassifier, images: Tensor
) -> None:
    """NaN is at most nothing and at least nothing: without care such an image would pass as either."""

    class Broken(ToyClassifier):
        def __call__(self, images: Tensor) -> Tensor:
            logits = super().__call__(images)
            return logits.masked_fill((images.flatten(1)[:, :1] > 0.8), float("nan"))

    found = detect(fitted, Broken(), images)
    is_broken = images.flatten(1)[:, 0] > 0.8
    assert is_broken.any()
    assert found.is_abstained[is_broken].all()
    assert found.score[is_broken].isnan().all()
    assert not found.is_adversarial[found.is_abstained].any()
    assert found.has_template.all()
    assert found.reasons == [NOT_FINITE if is_abstained else None for is_abstained in found.is_abstained.tolist()]


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_every_family_gives_finite_rows_that_do_not_depend_on_the_batch(
    family: str, classifier: ToyClassifier, templates: ClassTemplates, images: Tensor
) -> None:
    config = DetectorConfig(alphas=(0.0, 0.4, 1.0), n_templates=2, features=(family,))
    together = extract_features(config, observe(config, classifier, images, templates))
    alone = [extract_features(config, observe(config, classifier, image[None], templates)) for image in images[:8]]
    assert together.shape[0] == 64
    assert torch.isfinite(together).all()
    torch.testing.assert_close(together[:8], torch.cat(alone))


def test_logits_are_in_descending_order_and_no_more_than_asked(
    classifier: ToyClassifier, templates: ClassTemplates, images: Tensor
) -> None:
    config = DetectorConfig(alphas=(0.0,), features=("sorted_logits",), n_logits=3)
    features = extract_features(config, observe(config, classifier, images, templates))
    expected = classifier(images).sort(dim=1, descending=True).values[:, :3]
    torch.testing.assert_close(features, expected)


def test_the_log_margin_is_of_the_two_highest_logits_and_finite_at_a_tie(
    classifier: ToyClassifier, templates: ClassTemplates, images: Tensor
) -> None:
    config = DetectorConfig(alphas=(0.0, 1.0), features=("log_margin",))
    observation = observe(config, classifier, images, templates)
    highest, second = observation.curves.logits.sort(dim=1, descending=True).values[:, :2].unbind(1)
    expected = torch.log(highest - second + 0.1)
    torch.testing.assert_close(extract_features(config, observation), expected[:, None])
    level = replace(observation, curves=replace(observation.curves, logits=torch.zeros_like(observation.curves.logits)))
    torch.testing.assert_close(extract_features(config, level).exp(), torch.full((64, 1), 0.1, dtype=images.dtype))


def test_the_score_can_be_attacked_by_gradient(fitted: Detector, classifier: ToyClassifier, images: Tensor) -> None:
    image = images[:3].clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(detect(fitted, classifier, image).score.sum(), image)
    assert (gradient.flatten(1).abs().sum(dim=1) > 0).all()


def test_too_few_calibration_images_are_refused(
    classifier: ToyClassifier, templates: ClassTemplates, images: Tensor
) -> None:
    config = DetectorConfig(alphas=(0.0, 0.5), n_neighbors=3, target_fpr=0.05)
    with pytest.raises(DetectorInputError, match=r"needs at least 19 natural calibration images .* got 18"):
        fit_detector(config, classifier, templates, FitSet(images, torch.arange(64) > 30), images[:18])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_templates": 0}, "at least 1"),
        ({"target_fpr": 0.0}, r"within \(0, 1\)"),
        ({"features": ()}, "families"),
        ({"features": ("barrier", "barrier")}, "different families"),
        ({"noise_sigmas": (0.1, 0.0)}, "noise levels are positive"),
        ({"persistence_gamma": 1.0}, "persistence_gamma"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DetectorInputError, match=message):
        replace(DetectorConfig(alphas=(0.0, 1.0)), **changes)  # type: ignore[arg-type]


def test_alphas_and_noise_that_are_no_numbers_are_refused() -> None:
    """NaN is neither below 0 nor above 1: a check for what is wrong lets it through, one for what is right does not."""
    with pytest.raises(DetectorInputError, match="alphas are ascending"):
        DetectorConfig(alphas=(float("nan"),))
    for sigma in (float("nan"), float("inf")):
        with pytest.raises(DetectorInputError, match="noise levels are positive and finite"):
            DetectorConfig(alphas=(0.0, 1.0), noise_sigmas=(0.1, sigma))


def test_an_unknown_family_is_refused_with_the_known_ones(
    classifier: ToyClassifier, templates: ClassTemplates, images: Tensor
) -> None:
    with pytest.raises(
        DetectorInputError, match=r"unknown feature families \['curves'\]; the known ones are \['barrier'"
    ):
        observe(DetectorConfig(alphas=(0.0,), features=("curves",)), classifier, images, templates)
