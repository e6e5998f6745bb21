"""What an attack wants, apart from how it searches."""

from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from modeguard.detector import Classifier, at_least_float32, check_images
from modeguard.offline.attacks.errors import AttackError


class Goal(Protocol):
    """What an attack wants of each of n images; no image's values depend on another image.

    A goal of one's own subclasses this and writes the first four methods. `loss` and `gaps` are for attacks that were
    published with something else than the gap; a goal that has nothing better leaves them as they are.
    """

    __slots__ = ()

    def check(self, images: Tensor) -> None:
        """Refuse images (n, c, h, w) that this is not a goal for; `run_attack` asks once, before anything else.

        Raises:
            DetectorInputError: if the images have another shape or type than the classifier takes.
            AttackError: if the goal is one for other images.
        """
        ...

    def pick(self, rows: Tensor) -> Self:
        """The same goal for some of its images, named by a mask (n,) bool or by their places (m,) int64."""
        ...

    def is_met(self, images: Tensor) -> Tensor:
        """Whether each image (n, c, h, w) meets the goal: (n,) bool, without gradients."""
        ...

    def gap(self, images: Tensor) -> Tensor:
        """What separates each image (n, c, h, w) from the goal: (n,), differentiable, negative once it is met."""
        ...

    def loss(self, images: Tensor) -> Tensor:
        """What gradient ascent climbs: (n,), differentiable; the negative gap if a goal has nothing better."""
        return -self.gap(images)

    def gaps(self, images: Tensor) -> Tensor:
        """The gap of each of the k ways to meet the goal: (n, k), differentiable, one of them negative once it is met.

        A goal that can be met in one way only has one, its gap.
        """
        return self.gap(images)[:, None]


@dataclass(frozen=True, slots=True, eq=False)
class Misclassified(Goal):
    """The classifier's answer is another class than the label, whichever.

    Attributes:
        classifier: see `Classifier`; its parameters get no gradients.
        labels: (n,) int64, the true classes.
    """

    classifier: Classifier
    labels: Tensor

    def check(self, images: Tensor) -> None:
        """See `Goal.check`; also refuses labels that are no classes, and a classifier of a single one."""
        _check_classes("labels", self.classifier, self.labels, images)

    def pick(self, rows: Tensor) -> Self:
        """See `Goal.pick`."""
        return type(self)(self.classifier, self.labels[rows])

    def is_met(self, images: Tensor) -> Tensor:
        """See `Goal.is_met`."""
        return is_misclassified(self.classifier, images, self.labels)

    def gap(self, images: Tensor) -> Tensor:
        """What the label's logit has over the highest other one."""
        own, others = _own_and_other_logits(self.classifier, images, self.labels)
        return (own - others.max(dim=1, keepdim=True).values).squeeze(1)

    def loss(self, images: Tensor) -> Tensor:
        """The cross-entropy of the label."""
        return F.cross_entropy(_logits(self.classifier, images), self.labels, reduction="none")

    def gaps(self, images: Tensor) -> Tensor:
        """What the label's logit has over that of each other class, (n, n_classes - 1)."""
        own, others = _own_and_other_logits(self.classifier, images, self.labels)
        return own - others

    def aimed_at(self, classes: Tensor) -> "ClassifiedAs":
        """The narrower goal of one class (n,) an image, which is to be another one than its label."""
        return ClassifiedAs(self.classifier, classes)


@dataclass(frozen=True, slots=True, eq=False)
class ClassifiedAs(Goal):
    """The classifier's answer is a certain class: a targeted attack.

    Attributes:
        classifier: see `Classifier`; its parameters get no gradients.
        targets: (n,) int64, the classes wanted.
    """

    classifier: Classifier
    targets: Tensor

    def check(self, images: Tensor) -> None:
        """See `Goal.check`; also refuses targets that are no classes, and a classifier of a single one."""
        _check_classes("targets", self.classifier, self.targets, images)

    def pick(self, rows: Tensor) -> Self:
        """See `Goal.pick`."""
        return type(self)(self.classifier, self.targets[rows])

    def is_met(self, images: Tensor) -> Tensor:
        """See `Goal.is_met`."""
        return ~is_misclassified(self.classifier, images, self.targets)

    def gap(self, images: Tensor) -> Tensor:
        """What the highest other logit has over the target's."""
        own, others = _own_and_other_logits(self.classifier, images, self.targets)
        return (others.max(dim=1, keepdim=True).values - own).squeeze(1)

    def loss(self, images: Tensor) -> Tensor:
        """The negative cross-entropy of the target."""
        return -F.cross_entropy(_logits(self.classifier, images), self.targets, reduction="none")


def is_misclassified(classifier: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """Whether the classifier's answer is another class than the label.

    Args:
        classifier: see `Classifier`; called once, with all images.
        images: (n, c, h, w), floating point, [0, 1].
        labels: (n,) int64, the true classes.

    Returns:
        (n,) bool.
    """
    with torch.no_grad():
        return torch.ne(classifier(images).argmax(dim=1), labels)


def _logits(classifier: Classifier, images: Tensor) -> Tensor:
    return at_least_float32(classifier(images))


def _own_and_other_logits(classifier: Classifier, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """The logit (n, 1) of one class an image, and those (n, n_classes - 1) of all others in their order."""
    logits, own = _logits(classifier, images), classes[:, None]
    # columns from the class's own on move up by one, past it; gathered, so that a gradient goes to one logit exactly
    others = torch.arange(logits.shape[1] - 1, device=logits.device)
    return logits.gather(1, own), logits.gather(1, others + (others >= own))


def _check_classes(name: str, classifier: Classifier, classes: Tensor, images: Tensor) -> None:
    check_images(classifier, images)
    n_classes = classifier.n_classes
    if n_classes < 2:
        raise AttackError(f"an attack needs a classifier of at least 2 classes, got {n_classes}")
    if classes.dtype != torch.int64 or classes.shape != images.shape[:1]:
        raise AttackError(
            f"{name} of shape ({len(images)},) and type int64 were expected, "
            f"got {tuple(classes.shape)} and {classes.dtype}"
        )
    if len(classes) and not (classes.min() >= 0 and classes.max() < n_classes):
        low, high = int(classes.min()), int(classes.max())
        raise AttackError(f"{name} of this classifier are 0 to {n_classes - 1}, got {low} to {high}")
