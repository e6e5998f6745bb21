"""A toy classifier and toy images: small enough to reason about, real enough to have barriers."""

import pytest
import torch
from torch import Tensor, nn

from modeguard.detector import (
    Classifier,
    ClassTemplates,
    Detector,
    DetectorConfig,
    FitSet,
    cross_entropy_and_margin,
    fit,
)
from modeguard.detector.questions import Curves
from modeguard.detector.scorers import NeighborsOptions


class ToyClassifier:
    """A random two-layer network in double precision that counts its rows and the largest batch it saw."""

    def __init__(self, n_classes: int = 4, input_shape: tuple[int, int, int] = (1, 4, 4), seed: int = 0) -> None:
        self.n_classes = n_classes
        self.input_shape = input_shape
        generator = torch.Generator().manual_seed(seed)
        n_pixels = input_shape[0] * input_shape[1] * input_shape[2]
        self.hidden = 4 * torch.randn(n_pixels, 32, generator=generator, dtype=torch.float64)
        self.out = 0.3 * torch.randn(32, n_classes, generator=generator, dtype=torch.float64)
        self.n_rows = 0
        self.largest_call = 0

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (n, n_classes)."""
        self.n_rows += len(images)
        self.largest_call = max(self.largest_call, len(images))
        return nn.functional.gelu((images.flatten(1).double() - 0.5) @ self.hidden) @ self.out


@pytest.fixture
def classifier() -> ToyClassifier:
    return ToyClassifier()


@pytest.fixture
def images() -> Tensor:
    return torch.rand((64, 1, 4, 4), generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def templates(classifier: ToyClassifier) -> ClassTemplates:
    return toy_templates(classifier)


@pytest.fixture
def fitted(classifier: ToyClassifier, templates: ClassTemplates, images: Tensor) -> Detector:
    """A detector of the toy classifier whose adversarial images are noisy ones."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    fit_set = FitSet(torch.cat([images, (images + 0.4 * noise).clamp(0, 1)]), torch.arange(128) >= 64)
    natural = torch.rand((200, 1, 4, 4), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    config = DetectorConfig(
        questions={"curves": Curves((0.0, 0.25, 0.5, 0.75, 1.0))}, n_templates=2, scorer=NeighborsOptions(n_neighbors=7)
    )
    return fit(config, classifier, templates, fit_set, natural)


def toy_templates(classifier: Classifier, n_templates: int = 3, classes: Tensor | None = None) -> ClassTemplates:
    """The images of lowest loss of each class among many random ones."""
    pool = torch.rand((4000, *classifier.input_shape), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    logits = classifier(pool)
    chosen = torch.arange(classifier.n_classes) if classes is None else classes
    picked = torch.stack([logits.log_softmax(1)[:, label].topk(n_templates).indices for label in chosen])
    losses, margins = cross_entropy_and_margin(logits[picked.flatten()], chosen.repeat_interleave(n_templates))
    return ClassTemplates(chosen, pool[picked], losses.view_as(picked), margins.view_as(picked))
