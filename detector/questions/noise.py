"""How the classifier answers under Gaussian noise.

Bell, "Neighborhoods of Adversarial Examples" (2023), part I: (gamma, sigma)-stability (definition 4.1) by Monte Carlo
(equation 7).

The noise is drawn once and shared by all images, so that an answer does not depend on the batch it came in. Noisy
pixels are not clipped to [0, 1], as in the source.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from modeguard.detector.errors import DetectorInputError
from modeguard.detector.losses import cross_entropy_and_margin
from modeguard.detector.questions.question import AtImage, Question
from modeguard.detector.records import Leaf
from modeguard.detector.rows import Classifier
from modeguard.detector.templates import ClassTemplates

LARGEST_SIGMA = 1e6
"""More noise than this would overflow sooner or later; nothing is left of an image long before."""


@dataclass(frozen=True, slots=True, eq=False)
class NoiseAnswer:
    """What the classifier says of n noisy images.

    Attributes:
        agreement: (n, n_sigmas) fraction of the draws that keep the predicted class, in [0, 1].
        margins: (n, n_sigmas) mean logit margin of the predicted class over the draws.
    """

    agreement: Annotated[Tensor, Leaf("n n_sigmas", torch.float32)]
    margins: Annotated[Tensor, Leaf("n n_sigmas", torch.float32)]


@dataclass(frozen=True, slots=True)
class Noise(Question[NoiseAnswer]):
    """Agreement and margin of the predicted class at several noise levels.

    An image is (gamma, sigma)-stable where the agreement at sigma is at least gamma (definition 4.1). The margins are
    differentiable with respect to the images.

    Attributes:
        sigmas: noise levels on the [0, 1] pixel scale, positive.
        n_draws: draws at each level.
        seed: of the draws.
    """

    answer_type: ClassVar[type] = NoiseAnswer

    sigmas: tuple[float, ...] = (0.02, 0.04, 0.08, 0.16)
    n_draws: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        is_level = [0 < sigma <= LARGEST_SIGMA for sigma in self.sigmas]
        if not self.sigmas or not all(is_level) or self.n_draws < 1:
            raise DetectorInputError(
                f"noise levels are positive and finite, at most {LARGEST_SIGMA:g}, and n_draws at least 1, got "
                f"{self.sigmas} and {self.n_draws}"
            )
        check_seed(self.seed)

    def n_rows(self, n_templates: int) -> int:
        """A row for each draw at each level."""
        return len(self.sigmas) * self.n_draws

    def ask(self, classifier: Classifier, images: Tensor, at_image: AtImage, templates: ClassTemplates) -> NoiseAnswer:
        """See `Question.ask`."""
        draws = gaussian_draws(classifier.input_shape, self.n_draws, self.seed).to(images)
        levels = [
            noisy_answer(classifier, images, at_image.predicted, draws, images.new_full((len(images),), sigma))
            for sigma in self.sigmas
        ]
        agreement, margins = (torch.stack(values, dim=1) for values in zip(*levels, strict=True))
        return NoiseAnswer(agreement, margins)


def check_seed(seed: int) -> None:
    """Refuse a seed that not every generator takes.

    Raises:
        DetectorInputError: saying what came.
    """
    if not 0 <= seed < 2**63:
        raise DetectorInputError(f"seed is 0 to 2**63 - 1, got {seed}")


def gaussian_draws(input_shape: tuple[int, int, int], n_draws: int, seed: int) -> Tensor:
    """Standard normal noise (n_draws, c, h, w), the same on every device and in every batch."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((n_draws, *input_shape), generator=generator)


def noisy_answer(
    classifier: Classifier, images: Tensor, predicted: Tensor, draws: Tensor, sigmas: Tensor
) -> tuple[Tensor, Tensor]:
    """Agreement and mean margin (n,) of images each at its own noise level.

    Monte Carlo estimate of P[class(x + sigma z) = class(x)], Bell equation 7.

    Args:
        classifier: see `Question.ask`.
        images: (n, c, h, w).
        predicted: (n,) int64, the class at each image itself.
        draws: (n_draws, c, h, w) standard normal noise.
        sigmas: (n,) standard deviations.
    """
    n_draws = len(draws)
    # (n, n_draws, c, h, w): each image with every draw, the draws scaled by the image's own level
    noisy = images[:, None] + sigmas[:, None, None, None, None] * draws
    classes = predicted.repeat_interleave(n_draws)
    logits = classifier(noisy.flatten(0, 1))
    is_same = (logits.argmax(dim=1) == classes).to(images.dtype).reshape(-1, n_draws)
    margins = cross_entropy_and_margin(logits, classes)[1].reshape(-1, n_draws)
    return is_same.mean(dim=1), margins.mean(dim=1)
