"""Choosing templates: the lowest losses among the correctly classified, and what happens to classes without any."""

import pytest
import torch
from torch import Tensor

from modeguard.detector import to_pixels
from modeguard.detector.questions import Curves, observe
from modeguard.templates_store.templates import TemplateError, choose_templates
from tests.conftest import ToyClassifier


@pytest.fixture
def image_bytes() -> Tensor:
    return torch.randint(0, 256, (500, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_templates_are_the_lowest_losses_of_each_class(classifier: ToyClassifier, image_bytes: Tensor) -> None:
    labels = classifier(to_pixels(image_bytes)).argmax(dim=1)
    chosen = choose_templates(classifier, image_bytes, labels, n_templates=3, max_loss=10.0)
    losses = -classifier(to_pixels(image_bytes)).log_softmax(dim=1).gather(1, labels[:, None])[:, 0]
    for row, label in enumerate(chosen.classes):
        expected = losses[labels == label].sort().values[:3]
        torch.testing.assert_close(chosen.losses[row], expected)


def test_stored_ends_are_what_the_classifier_says_of_the_templates(
    classifier: ToyClassifier, image_bytes: Tensor
) -> None:
    labels = classifier(to_pixels(image_bytes)).argmax(dim=1)
    chosen = choose_templates(classifier, image_bytes, labels, n_templates=2, max_loss=10.0)
    at_templates = observe({"curves": Curves((0.0, 1.0))}, classifier, chosen.images[:, 0], chosen).answers["curves"]
    torch.testing.assert_close(at_templates.losses[:, 0, 0], chosen.losses[:, 0])
    torch.testing.assert_close(at_templates.margins[:, 0, 0], chosen.margins[:, 0])


def test_misclassified_images_are_never_templates(classifier: ToyClassifier, image_bytes: Tensor) -> None:
    labels = torch.randint(0, 4, (500,), generator=torch.Generator().manual_seed(1))
    chosen = choose_templates(classifier, image_bytes, labels, n_templates=1, max_loss=10.0)
    assert torch.equal(classifier(chosen.images[:, 0]).argmax(dim=1), chosen.classes)


def test_classes_without_low_loss_are_named(classifier: ToyClassifier, image_bytes: Tensor) -> None:
    labels = classifier(to_pixels(image_bytes)).argmax(dim=1)
    labels[labels == 2] = 1
    with pytest.raises(TemplateError, match=r"these have fewer: cat \(0\)\. Raise max_loss"):
        choose_templates(
            classifier, image_bytes, labels, n_templates=1, max_loss=9.0, class_names=("ape", "bee", "cat", "dog")
        )


def test_classes_may_be_left_without_verdict(classifier: ToyClassifier, image_bytes: Tensor) -> None:
    labels = classifier(to_pixels(image_bytes)).argmax(dim=1)
    labels[labels == 2] = 1
    chosen = choose_templates(classifier, image_bytes, labels, n_templates=1, max_loss=9.0, missing="abstain")
    assert chosen.classes.tolist() == [0, 1, 3]


def test_a_detector_without_any_template_is_refused_even_if_classes_may_be_missing(
    classifier: ToyClassifier, image_bytes: Tensor
) -> None:
    labels = classifier(to_pixels(image_bytes)).argmax(dim=1)
    with pytest.raises(TemplateError, match="loss of at most 1e-12"):
        choose_templates(classifier, image_bytes, labels, n_templates=1, max_loss=1e-12, missing="abstain")
