"""The gradient-sign attacks inside an L∞ ball: FGSM, BIM and PGD, and the ascent that they share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from modeguard.detector.rows import Classifier
from modeguard.offline.attacks.base import (
    Norm,
    check_attack_inputs,
    check_count,
    check_flag,
    check_number,
    is_adversarial,
    logits_of,
    per_image,
)

RowLoss = Callable[[Tensor], Tensor]
"""Images (n, c, h, w) to one loss an image (n,), differentiable; no image's loss depends on another image."""


@dataclass(frozen=True, slots=True)
class Fgsm:
    """One step of `epsilon` along the sign of the cross-entropy's gradient (Goodfellow et al. 2015, §4).

    An image where the attack fails comes back perturbed all the same.
    """

    norm: ClassVar[Norm] = "linf"
    epsilon: float = 0.03

    def __post_init__(self) -> None:
        check_number("epsilon", self.epsilon, above=0, at_most=1)

    def attack(
        self,
        classifier: Classifier,
        images: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """See `Attack.attack`; deterministic."""
        return _ascend_from_natural(classifier, images, labels, epsilon=self.epsilon, step_size=self.epsilon, n_steps=1)


@dataclass(frozen=True, slots=True)
class Bim:
    """The basic iterative method: FGSM in small steps from the image itself (Kurakin et al. 2017, §2.2).

    The last iterate is returned, whether it is adversarial or not: it has the highest loss, and is what the
    published benchmarks keep.
    """

    norm: ClassVar[Norm] = "linf"
    epsilon: float = 0.03
    n_steps: int = 10
    relative_step: float = 0.2
    """Step size as a fraction of epsilon."""

    def __post_init__(self) -> None:
        _check_ascent(self.epsilon, self.n_steps, self.relative_step)

    def attack(
        self,
        classifier: Classifier,
        images: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """See `Attack.attack`; deterministic."""
        step_size = self.relative_step * self.epsilon
        return _ascend_from_natural(
            classifier, images, labels, epsilon=self.epsilon, step_size=step_size, n_steps=self.n_steps
        )


@dataclass(frozen=True, slots=True)
class Pgd:
    """Projected gradient ascent from a random point of the ball (Madry et al. 2018, §2.1).

    The last iterate is returned, whether it is adversarial or not, as `Bim` does.
    """

    norm: ClassVar[Norm] = "linf"
    epsilon: float = 0.03
    n_steps: int = 40
    relative_step: float = 1 / 30
    """Step size as a fraction of epsilon."""
    random_start: bool = True

    def __post_init__(self) -> None:
        _check_ascent(self.epsilon, self.n_steps, self.relative_step)
        check_flag("random_start", self.random_start)

    def attack(
        self,
        classifier: Classifier,
        images: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """See `Attack.attack`; the random start comes from the generator."""
        step_size = self.relative_step * self.epsilon
        if not self.random_start:
            return _ascend_from_natural(
                classifier, images, labels, epsilon=self.epsilon, step_size=step_size, n_steps=self.n_steps
            )
        check_attack_inputs(classifier, images, labels)
        start = uniform_start(images, self.epsilon, generator)
        adversarial = images.detach().clone()
        rows = (~is_adversarial(classifier, images, labels)).nonzero().squeeze(1)
        if len(rows):
            adversarial[rows] = projected_gradient(
                cross_entropy(classifier, labels[rows]),
                images[rows],
                start[rows],
                epsilon=self.epsilon,
                step_size=step_size,
                n_steps=self.n_steps,
            )
        return adversarial


def projected_gradient(
    loss: RowLoss, natural: Tensor, start: Tensor, *, epsilon: float, step_size: float, n_steps: int
) -> Tensor:
    """Climb a loss by sign-gradient steps that stay in the L∞ ball around the natural images and in [0, 1].

    Madry et al. 2018, equation of §2.1. To descend a loss, pass its negative.

    Args:
        loss: what to climb; any differentiable loss of the images, not only the classifier's.
        natural: (n, c, h, w) in [0, 1], centres of the balls.
        start: (n, c, h, w), where to begin.
        epsilon: radius on the [0, 1] pixel scale.
        step_size: on the [0, 1] pixel scale.
        n_steps: number of gradients taken; 0 returns the projected start.

    Returns:
        (n, c, h, w), the last iterate, detached.
    """
    lowest, highest = (natural - epsilon).clamp(min=0), (natural + epsilon).clamp(max=1)
    images = start.detach().clamp(lowest, highest)
    for _ in range(n_steps):
        images = images.add(input_gradient(loss, images).sign_(), alpha=step_size).clamp_(lowest, highest)
    return images


def input_gradient(loss: RowLoss, images: Tensor) -> Tensor:
    """Gradient (n, c, h, w) of each image's loss with respect to that image; nothing else gets a gradient."""
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(images).sum(), images)
    return gradient


def cross_entropy(classifier: Classifier, labels: Tensor) -> RowLoss:
    """The classifier's cross-entropy of the labels (n,), as a loss of the images."""
    return lambda images: F.cross_entropy(logits_of(classifier, images), labels, reduction="none")


def uniform_start(images: Tensor, epsilon: float, generator: torch.Generator | None) -> Tensor:
    """The images (n, c, h, w) plus noise uniform in [-epsilon, epsilon], clipped to [0, 1]."""
    device = images.device if generator is None else generator.device
    noise = torch.rand(images.shape, generator=generator, device=device, dtype=images.dtype).to(images.device)
    return (images + (2 * noise - 1) * epsilon).clamp_(0, 1)


def _check_ascent(epsilon: float, n_steps: int, relative_step: float) -> None:
    check_number("epsilon", epsilon, above=0, at_most=1)
    check_count("n_steps", n_steps)
    check_number("relative_step", relative_step, above=0, at_most=2)


def _ascend_from_natural(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    step_size: float,
    n_steps: int,
) -> Tensor:
    """Ascend from the images themselves; the first step's logits also tell which are misclassified as they are."""
    check_attack_inputs(classifier, images, labels)
    natural = images.detach()
    if len(natural) == 0:
        return natural.clone()
    seen: list[Tensor] = []

    def first_loss(images: Tensor) -> Tensor:
        logits = logits_of(classifier, images)
        seen.append(logits.detach())
        return F.cross_entropy(logits, labels, reduction="none")

    step = min(step_size, epsilon) * input_gradient(first_loss, natural).sign_()
    is_correct = seen[0].argmax(dim=1) == labels
    adversarial = torch.where(per_image(is_correct), natural + step, natural).clamp_(0, 1)
    rows = is_correct.nonzero().squeeze(1)
    if n_steps > 1 and len(rows):
        adversarial[rows] = projected_gradient(
            cross_entropy(classifier, labels[rows]),
            natural[rows],
            adversarial[rows],
            epsilon=epsilon,
            step_size=step_size,
            n_steps=n_steps - 1,
        )
    return adversarial
