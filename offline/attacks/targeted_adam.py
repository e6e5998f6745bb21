"""The targeted attack of the input-space mode-connectivity paper: plain Adam on the pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from modeguard.offline.attacks.attack import Draws, Norm
from modeguard.offline.attacks.errors import AttackError
from modeguard.offline.attacks.goals import Goal, Misclassified
from modeguard.offline.attacks.gradients import input_gradient
from modeguard.offline.attacks.parameters import Number, Whole, check_parameters, check_value


@dataclass(frozen=True, slots=True)
class TargetedAdam:
    """Adam towards the cross-entropy of another class, kept near the source image and smooth.

    "Input Space Mode Connectivity in Deep Neural Networks" (2024), §4.2: the loss of an image is the cross-entropy
    of its target class, plus `deviation_weight` times its mean squared error from the source image, plus
    `frequency_weight` times the sum of squared differences of its adjacent pixels. Pixels are clipped to [0, 1]
    after each step.

    Where the goal is `Misclassified`, each image is given a target class of its own by chance. Any other goal, such as
    `ClassifiedAs`, has its loss climbed as it is.

    The last iterate is returned, whether it meets the goal or not: the attack seeks a low loss of the target
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
        check_parameters(
            self,
            n_steps=Whole(),
            learning_rate=Number(above=0, at_most=1),
            deviation_weight=Number(),
            frequency_weight=Number(),
        )
        for target in self.target_classes:
            check_value("each of target_classes", target, Whole(at_least=0))
        if len(set(self.target_classes)) != len(self.target_classes) or len(self.target_classes) == 1:
            raise AttackError(f"target_classes are none or at least two different ones, got {self.target_classes}")

    def perturb(self, goal: Goal, images: Tensor, draws: Draws) -> Tensor:
        """See `Attack.perturb`; the target classes come from the draws.

        Raises:
            AttackError: if the classifier lacks one of `target_classes`.
        """
        wanted = self._draw_targets(goal, draws) if isinstance(goal, Misclassified) else goal

        def loss(moved: Tensor) -> Tensor:
            descended = -wanted.loss(moved)
            descended = descended + self.deviation_weight * (moved - images).square().flatten(1).mean(dim=1)
            return descended + self.frequency_weight * roughness(moved)

        adversarial = images.clone()
        # one optimiser for the batch: Adam works pixel by pixel, so no image's steps depend on another image
        optimizer = torch.optim.Adam([adversarial], lr=self.learning_rate)
        for _ in range(self.n_steps):
            adversarial.grad = input_gradient(loss, adversarial)
            optimizer.step()
            adversarial.clamp_(0, 1)
        return adversarial

    def _draw_targets(self, goal: Misclassified, draws: Draws) -> Goal:
        n_classes = goal.classifier.n_classes
        among = self.target_classes or tuple(range(n_classes))
        if max(among) >= n_classes:
            raise AttackError(f"target_classes of this classifier are 0 to {n_classes - 1}, got {self.target_classes}")
        return goal.aimed_at(other_classes(goal.labels, among, draws.uniform(dtype=torch.float64)))


def roughness(images: Tensor) -> Tensor:
    """Sum (n,) of the squared differences of vertically and horizontally adjacent pixels of (n, c, h, w)."""
    down = images.diff(dim=2).square().flatten(1).sum(dim=1)
    across = images.diff(dim=3).square().flatten(1).sum(dim=1)
    return down + across


def other_classes(labels: Tensor, among: Sequence[int], drawn: Tensor) -> Tensor:
    """For each label (n,) one of the classes `among`, uniformly from those that are not the label.

    Args:
        labels: (n,) int64.
        among: at least two classes, none twice.
        drawn: (n,) uniform in [0, 1).
    """
    classes = torch.tensor(among, device=labels.device)
    is_own = classes == labels[:, None]
    place = (drawn * (len(among) - is_own.sum(dim=1))).long()
    # places from the label's own on move up by one, past it; a label that is none of the classes moves nothing
    own = torch.where(is_own.any(dim=1), is_own.int().argmax(dim=1), len(among))
    return classes[place + (place >= own)]
