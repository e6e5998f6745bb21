"""The detector as a whole: verdicts, abstention, invariance, gradients, and refusals at fitting."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from modeguard.detector import (
    FEATURES,
    NO_TEMPLATE,
    NOT_FINITE,
    ClassTemplates,
    Counted,
    Detector,
    DetectorConfig,
    DetectorInputError,
    FitSet,
    Sliced,
    detect,
    extract_features,
    fit,
    judge,
    questions_of,
    rows_per_image,
)
from modeguard.detector.questions import AnyQuestion, AtImage, Curves, Noise, Observation, observe
from modeguard.detector.scorers import Neighbors, NeighborsOptions
from tests.conftest import ToyClassifier, toy_templates

EVERY_FAMILY = tuple(FEATURES)


def test_verdicts_follow_from_scores(fitted: Detector, classifier: ToyClassifier, images: Tensor) -> None:
    found = detect(fitted, classifier, images)
    below = (fitted.calibration_scores[None] >= found.score[:, None]).sum(dim=1)
    torch.testing.assert_close(found.p_value, (below + 1).double() / (len(fitted.calibration_scores) + 1))
    assert torch.equal(found.is_flagged, found.p_value <= fitted.config.target_fpr)
    assert torch.equal(found.predicted, classifier(images).argmax(dim=1))
    assert ((found.score >= 0) & (found.score <= 1)).all()  # a share of neighbors


def test_calibration_images_are_flagged_at_the_target_rate(fitted: Detector, classifier: ToyClassifier) -> None:
    natural = torch.rand((200, 1, 4, 4), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    flagged = detect(fitted, classifier, natural).is_flagged.double().mean()
    assert float(flagged) <= fitted.config.target_fpr


def test_score_does_not_depend_on_the_batch(fitted: Detector, classifier: ToyClassifier, images: Tensor) -> None:
    together = detect(fitted, Sliced(classifier, 50), images)
    alone = torch.cat([detect(fitted, classifier, image[None]).score for image in images])
    torch.testing.assert_close(together.score, alone, atol=1e-9, rtol=0)


def test_an_empty_batch_has_no_verdicts(fitted: Detector, classifier: ToyClassifier, images: Tensor) -> None:
    found = detect(fitted, classifier, images[:0])
    assert found.score.shape == found.p_value.shape == found.is_abstained.shape == (0,)


def test_images_of_a_class_without_template_get_no_verdict(classifier: ToyClassifier, images: Tensor) -> None:
    templates = toy_templates(classifier, classes=torch.tensor([0, 1]))
    config = DetectorConfig(
        questions={"curves": Curves((0.0, 0.5))}, scorer=NeighborsOptions(n_neighbors=3), target_fpr=0.2
    )
    detector = fit(config, classifier, templates, FitSet(images, torch.arange(64) % 2 == 0), images)
    found = detect(detector, classifier, images)
    assert torch.equal(found.is_abstained, found.predicted >= 2)
    assert found.score[found.is_abstained].isnan().all()
    assert found.p_value[found.is_abstained].isnan().all()
    assert not found.is_flagged[found.is_abstained].any()
    assert not found.score[~found.is_abstained].isnan().any()
    assert found.reasons == [NO_TEMPLATE if label >= 2 else None for label in found.predicted.tolist()]


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        (("sorted_logits", "log_margin"), 1),
        (("loss_curve",), 1 + 1),
        (("loss_curve", "stability", "noise_margin"), 1 + 1 + 2 * 3),
        (("noise_margin",), 1 + 2 * 3),
    ],
)
def test_cost_is_what_the_families_need_and_no_more(
    classifier: ToyClassifier, templates: ClassTemplates, images: Tensor, features: tuple[str, ...], expected: int
) -> None:
    config = DetectorConfig(
        features=features,
        questions={"curves": Curves((0.0, 0.5, 1.0)), "noise": Noise((0.1, 0.2), n_draws=3)},
        scorer=NeighborsOptions(n_neighbors=3),
    )
    detector = fit(config, classifier, templates, FitSet(images, torch.arange(64) % 2 == 0), images)
    counted = Counted(classifier)
    assert detect(detector, counted, images).n_rows == counted.n_rows == 64 * expected
    assert rows_per_image(config) == expected


def test_a_detector_of_logits_alone_needs_no_template(classifier: ToyClassifier, images: Tensor) -> None:
    templates = toy_templates(classifier, classes=torch.tensor([0]))
    config = DetectorConfig(features=("sorted_logits",), scorer=NeighborsOptions(n_neighbors=3))
    detector = fit(config, classifier, templates, FitSet(images, torch.arange(64) % 2 == 0), images)
    found = detect(detector, classifier, images)
    assert not found.is_abstained.any()
    assert not found.has_template.all()
    assert found.curves is None
    assert all(verdict.curves is None for verdict in found.verdicts(with_curves=True))


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
    assert not found.is_flagged[found.is_abstained].any()
    assert found.has_template.all()
    assert found.reasons == [NOT_FINITE if is_abstained else None for is_abstained in found.is_abstained.tolist()]


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_every_family_gives_finite_rows_that_do_not_depend_on_the_batch(
    family: str, classifier: ToyClassifier, templates: ClassTemplates, images: Tensor
) -> None:
    config = DetectorConfig(features=(family,), questions={"curves": Curves((0.0, 0.4, 1.0))}, n_templates=2)
    questions = questions_of(config)
    together = extract_features(config, observe(questions, classifier, images, templates))
    alone = [extract_features(config, observe(questions, classifier, image[None], templates)) for image in images[:8]]
    assert together.shape[0] == 64
    assert torch.isfinite(together).all()
    torch.testing.assert_close(together[:8], torch.cat(alone))


def test_logits_are_in_descending_order_and_no_more_than_asked(
    classifier: ToyClassifier, templates: ClassTemplates, images: Tensor
) -> None:
    config = DetectorConfig(features=("sorted_logits",), n_logits=3)
    features = extract_features(config, observe({}, classifier, images, templates))
    expected = classifier(images).sort(dim=1, descending=True).values[:, :3]
    torch.testing.assert_close(features, expected)


def test_the_log_margin_is_of_the_two_highest_logits_and_finite_at_a_tie(
    classifier: ToyClassifier, templates: ClassTemplates, images: Tensor
) -> None:
    config = DetectorConfig(features=("log_margin",))
    observation = observe({}, classifier, images, templates)
    highest, second = observation.at_image.logits.sort(dim=1, descending=True).values[:, :2].unbind(1)
    expected = torch.log(highest - second + 0.1)
    torch.testing.assert_close(extract_features(config, observation), expected[:, None])
    level = Observation({}, AtImage(torch.zeros_like(observation.at_image.logits)), {})
    torch.testing.assert_close(extract_features(config, level).exp(), torch.full((64, 1), 0.1, dtype=images.dtype))


def test_the_score_can_be_attacked_by_gradient(fitted: Detector, classifier: ToyClassifier, images: Tensor) -> None:
    image = images[:3].clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(detect(fitted, classifier, image).score.sum(), image)
    assert (gradient.flatten(1).abs().sum(dim=1) > 0).all()


def test_gradients_do_not_depend_on_the_slices(fitted: Detector, classifier: ToyClassifier, images: Tensor) -> None:
    """Slices are computed again under gradients."""

    def gradient(rows_per_call: int) -> Tensor:
        image = (0.9 * images[:5]).requires_grad_(True)  # away from the references
        (found,) = torch.autograd.grad(detect(fitted, Sliced(classifier, rows_per_call), image).score.sum(), image)
        return found

    torch.testing.assert_close(gradient(3), gradient(10_000))


def test_a_detector_says_whether_its_score_can_be_differentiated(fitted: Detector) -> None:
    assert fitted.is_differentiable
    assert not replace(fitted, config=replace(fitted.config, features=("loss_curve", "stability"))).is_differentiable
    assert isinstance(fitted.scorer, Neighbors)
    uniform = replace(fitted.scorer, options=replace(fitted.scorer.options, weights="uniform"))
    assert not replace(fitted, scorer=uniform).is_differentiable


def test_judging_what_was_observed_is_detecting(fitted: Detector, classifier: ToyClassifier, images: Tensor) -> None:
    """Also where more points and templates were observed than the detector looks at."""
    wide: dict[str, AnyQuestion] = {
        "curves": Curves((0.0, 0.1, 0.25, 0.5, 0.75, 1.0)),
        "noise": Noise((0.1,), n_draws=2),
    }
    observation = observe(wide, classifier, images, toy_templates(classifier, n_templates=3))
    judged, detected = judge(fitted, observation), detect(fitted, classifier, images)
    torch.testing.assert_close(judged.score, detected.score)
    assert judged.curves is not None
    assert detected.curves is not None
    torch.testing.assert_close(judged.curves.losses, detected.curves.losses)
    assert (judged.n_rows, judged.alphas) == (0, detected.alphas)


def test_verdicts_are_the_detections_in_plain_values(
    fitted: Detector, classifier: ToyClassifier, images: Tensor
) -> None:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = detect(fitted, classifier, torch.cat([images, (images + 0.4 * noise).clamp(0, 1)]))  # of the fit set
    verdicts = found.verdicts(with_curves=True)
    assert [verdict.score for verdict in verdicts] == found.score.tolist()
    assert [verdict.is_flagged for verdict in verdicts] == found.is_flagged.tolist()
    assert {verdict.word for verdict in verdicts} == {"adversarial", "natural"}
    assert found.curves is not None
    shown = verdicts[3].curves
    assert shown is not None
    assert shown.alphas == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert [list(losses) for losses in shown.losses] == found.curves.losses[3].tolist()
    assert all(verdict.curves is None for verdict in found.verdicts())


def test_a_verdict_that_is_none_says_why_and_what_is_not_finite_is_none(
    fitted: Detector, classifier: ToyClassifier, images: Tensor
) -> None:
    class Broken(ToyClassifier):
        def __call__(self, images: Tensor) -> Tensor:
            return super().__call__(images) * float("nan")

    (verdict,) = detect(fitted, Broken(), images[:1]).verdicts(with_curves=True)
    assert (verdict.score, verdict.p_value, verdict.is_flagged) == (None, None, None)
    assert (verdict.reason, verdict.word) == (NOT_FINITE, "no verdict")
    assert verdict.curves is not None
    assert verdict.curves.losses[0][0] is None


def test_an_observation_without_what_a_family_needs_is_refused(
    fitted: Detector, classifier: ToyClassifier, images: Tensor
) -> None:
    with pytest.raises(DetectorInputError, match=r"need answers to \['curves'\], which this observation was made"):
        judge(fitted, observe({}, classifier, images, fitted.templates))


def test_too_few_calibration_images_are_refused(
    classifier: ToyClassifier, templates: ClassTemplates, images: Tensor
) -> None:
    config = DetectorConfig(scorer=NeighborsOptions(n_neighbors=3), target_fpr=0.05)
    with pytest.raises(DetectorInputError, match=r"needs at least 19 natural calibration images .* got 18"):
        fit(config, classifier, templates, FitSet(images, torch.arange(64) > 30), images[:18])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_templates": 0}, "at least 1"),
        ({"target_fpr": 0.0}, r"within \(0, 1\)"),
        ({"features": ()}, "families"),
        ({"features": ("barrier", "barrier")}, "different families"),
        ({"n_logits": 0}, "at least 1"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DetectorInputError, match=message):
        replace(DetectorConfig(), **changes)  # type: ignore[arg-type]


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        DetectorInputError, match=r"unknown feature families \['curves'\]; the known ones are \['barrier'"
    ):
        questions_of(DetectorConfig(features=("curves",)))
