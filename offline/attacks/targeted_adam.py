"""The targeted attack of the input-space mode-connectivity paper: plain Adam on the pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from modeguard.detector.rows import Classifier
from modeguard.offline.attacks.base import (
    AttackError,
    Norm,
    check_attack_inputs,
    check_classes,
    check_count,
    check_number,
    is_adversarial,
    logits_of,
)


@dataclass(frozen=True, slots=True)
class TargetedAdam:
    """Adam towards the cross-entropy of another class, kept near the source image and smooth.

    "Input Space Mode Connectivity in Deep Neural Networks" (2024), §4.2: the loss of an image is the cross-entropy
    of its target class, plus `deviation_weight` times its mean squared error from the source image, plus
    `frequency_weight` times the sum of squared differences of its adjacent pixels. Pixels are clipped to [0, 1]
    after each step.

    The last iterate is returned, whether it is adversarial or not: the attack seeks a low loss of the target
    class, not a small perturbation.
    """

    norm: ClassVar[Norm] = "l2"
    n_steps: int = 512
    learning_rate: float = 0.005
    deviation_weight: float = 0.1
    frequency_weight: float = 1e-8
    target_classes: tuple[int, ...] = ()
    """Classes to draw targets from; empty for all."""

    def __post_init__(self) -> None:
        check_count("n_steps", self.n_steps)
        check_number("learning_rate", self.learning_rate, above=0, at_most=1)
        check_number("deviation_weight", self.deviation_weight)
        check_number("frequency_weight", self.frequency_weight)
        for target in self.target_classes:
            check_count("each of target_classes", target, at_least=0)
        if len(set(self.target_classes)) != len(self.target_classes) or len(self.target_classes) == 1:
            raise AttackError(f"target_classes are none or at least two different ones, got {self.target_classes}")

    def attack(
        self,
        classifier: Classifier,
        images: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator | None = None,
        targets: Tensor | None = None,
    ) -> Tensor:
        """See `Attack.attack`.

        Args:
            classifier: as there.
            images: as there.
            labels: as there.
            generator: draws the targets where none are given.
            targets: (n,) int64, the class that each image shall be taken for; None draws any but the label.

        Raises:
            DetectorInputError: as there.
            AttackError: as there, or if a target is the image's own label.
        """
        check_attack_inputs(classifier, images, labels)
        if targets is None:
            among = self.target_classes or tuple(range(classifier.n_classes))
            targets = other_classes(labels, among, generator)
        check_classes("targets", targets, images, classifier.n_classes)
        if bool((targets == labels).any()):
            raise AttackError("a target is another class than the image's label; give other targets or none")
        adversarial = images.detach().clone()
        rows = (~is_adversarial(classifier, images, labels)).nonzero().squeeze(1)
        if len(rows):
            adversarial[rows] = self._descend(classifier, adversarial[rows], targets[rows])
        return adversarial

    def _descend(self, classifier: Classifier, source: Tensor, targets: Tensor) -> Tensor:
        images = source.clone().requires_grad_()
        optimizer = torch.optim.Adam([images], lr=self.learning_rate)
        for _ in range(self.n_steps):
            with torch.enable_grad():
                loss = F.cross_entropy(logits_of(classifier, images), targets, reduction="sum")
                deviation = (images - source).square().flatten(1).mean(dim=1).sum()
                loss = loss + self.deviation_weight * deviation
                loss = loss + self.frequency_weight * roughness(images).sum()
            (images.grad,) = torch.autograd.grad(loss, images)
            optimizer.step()
            with torch.no_grad():
                images.clamp_(0, 1)
        return images.detach()


def roughness(images: Tensor) -> Tensor:
    """Sum (n,) of the squared differences of vertically and horizontally adjacent pixels of (n, c, h, w)."""
    down = images.diff(dim=2).square().flatten(1).sum(dim=1)
    across = images.diff(dim=3).square().flatten(1).sum(dim=1)
    return down + across


def other_classes(labels: Tensor, among: Sequence[int], generator: torch.Generator | None) -> Tensor:
    """For each label (n,) one of the classes `among`, drawn uniformly from those that are not the label.

    Raises:
        AttackError: if there are fewer than two classes.
    """
    if len(among) < 2:
        raise AttackError(f"an attack needs at least 2 classes to choose a target from, got {len(among)}")
    device = labels.device if generator is None else generator.device
    classes = torch.tensor(among, device=labels.device)
    is_own = classes[None] == labels[:, None]
    n_allowed = len(among) - is_own.sum(dim=1)
    drawn = torch.rand(labels.shape, generator=generator, device=device, dtype=torch.float64).to(labels.device)
    place = (drawn * n_allowed).long()
    own = torch.where(is_own.any(dim=1), is_own.int().argmax(dim=1), len(among))
    return classes[place + (place >= own)]
