"""What every attack has in common: its interface, running one in slices, and the checks of what it is given."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from modeguard.detector import Classifier, Sliced, at_least_float32, check_images
from modeguard.detector.errors import ModeguardError

Norm = Literal["linf", "l2"]


class AttackError(ModeguardError, ValueError):
    """Parameters that no attack can have, or images and labels that it cannot start from."""


class Attack(Protocol):
    """An untargeted attack: a frozen record of parameters with one method."""

    norm: ClassVar[Norm]

    def attack(
        self,
        classifier: Classifier,
        images: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Look for images near `images` that the classifier takes for another class than `labels`.

        All images go through the classifier in one batch; `run_attack` cuts a whole data set into slices.

        Args:
            classifier: see `Classifier`; its parameters get no gradients.
            images: (n, c, h, w), floating point, [0, 1]; n may be 0.
            labels: (n,) int64, the true classes.
            generator: source of the random numbers of attacks that use any; None is torch's own.

        Returns:
            (n, c, h, w) in [0, 1], detached, in the images' type. An image that the classifier gets wrong as it
            is comes back unchanged, bit for bit. Where the attack fails, see the attack's own documentation.

        Raises:
            DetectorInputError: if the images have another shape or type than the classifier takes.
            AttackError: if the labels do not belong to the images, or pixels lie outside [0, 1].
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class AttackResult:
    """What an attack did to n images; `is_successful` is measured afresh on the finished images."""

    images: Tensor
    """(n, c, h, w) in [0, 1]."""
    is_attacked: Tensor
    """(n,) bool: the classifier was right about the natural image, so there was something to attack."""
    is_successful: Tensor
    """(n,) bool: right about the natural image, wrong about the returned one."""
    distances: Tensor
    """(n,) from the natural image, in the attack's norm; also of images where the attack failed."""

    @property
    def success_rate(self) -> float:
        """Successes as a fraction of the attacked images; NaN where there was none to attack."""
        n_attacked = int(self.is_attacked.sum())
        return int(self.is_successful.sum()) / n_attacked if n_attacked else math.nan


def run_attack(
    attack: Attack,
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    rows_per_call: int = 256,
    generator: torch.Generator | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> AttackResult:
    """Attack any number of images, at most `rows_per_call` at a time, and say which attacks succeeded.

    Args:
        attack: one of `ATTACKS`, constructed.
        classifier: see `Classifier`.
        images: (n, c, h, w), floating point, [0, 1].
        labels: (n,) int64, the true classes.
        rows_per_call: bound on the rows of one batch, and so on the memory.
        generator: see `Attack.attack`.
        on_progress: called after each slice with the number of images finished so far.

    Raises:
        DetectorInputError: see `Attack.attack`.
        AttackError: see `Attack.attack`.
    """
    check_attack_inputs(classifier, images, labels)
    adversarial = torch.empty_like(images)
    for start in range(0, len(images), rows_per_call):
        rows = slice(start, start + rows_per_call)
        adversarial[rows] = attack.attack(classifier, images[rows], labels[rows], generator=generator)
        if on_progress is not None:
            on_progress(min(start + rows_per_call, len(images)))
    is_fooled = is_adversarial(classifier, adversarial, labels, rows_per_call=rows_per_call)
    sizes = distances(images, adversarial, attack.norm)
    # an attack returns images unchanged only where they are misclassified as they are, or where it failed
    is_changed = sizes > 0
    return AttackResult(
        images=adversarial,
        is_attacked=is_changed | ~is_fooled,
        is_successful=is_changed & is_fooled,
        distances=sizes,
    )


def is_adversarial(classifier: Classifier, images: Tensor, labels: Tensor, *, rows_per_call: int = 256) -> Tensor:
    """Whether the classifier's answer is another class than the label.

    Args:
        classifier: see `Classifier`.
        images: (n, c, h, w), floating point, [0, 1].
        labels: (n,) int64, the true classes.
        rows_per_call: bound on the rows of one call of the classifier.

    Returns:
        (n,) bool.
    """
    with torch.no_grad():
        logits = Sliced(classifier, rows_per_call)(images)
    return torch.ne(logits.argmax(dim=1), labels)


def distances(natural: Tensor, adversarial: Tensor, norm: Norm) -> Tensor:
    """Norm of each image's perturbation, on the [0, 1] pixel scale.

    Args:
        natural: (n, c, h, w).
        adversarial: (n, c, h, w).
        norm: "linf" or "l2".

    Returns:
        (n,), at least 0.
    """
    differences = (adversarial - natural).flatten(1)
    return differences.abs().amax(dim=1) if norm == "linf" else differences.norm(dim=1)


def logits_of(classifier: Classifier, images: Tensor) -> Tensor:
    """Logits (n, n_classes) of one batch, float32 or wider, differentiable."""
    return at_least_float32(classifier(images))


def per_image(values: Tensor) -> Tensor:
    """One number an image (n,), shaped (n, 1, 1, 1) so that it multiplies images."""
    return values[:, None, None, None]


def check_attack_inputs(classifier: Classifier, images: Tensor, labels: Tensor) -> None:
    """Refuse images and labels that an attack cannot start from.

    Raises:
        DetectorInputError: if the images have another shape or type than the classifier takes.
        AttackError: if the labels do not belong to the images, or pixels lie outside [0, 1].
    """
    check_images(classifier, images)
    check_classes("labels", labels, images, classifier.n_classes)
    if len(images) and not (images.min() >= 0 and images.max() <= 1):
        low, high = float(images.min()), float(images.max())
        raise AttackError(f"pixels lie in [0, 1], got {low:.4g} to {high:.4g}; divide bytes by 255 first")


def check_classes(name: str, classes: Tensor, images: Tensor, n_classes: int) -> None:
    """Refuse anything but one class of `n_classes` for each image.

    Raises:
        AttackError: naming what was expected.
    """
    if classes.dtype != torch.int64 or classes.shape != images.shape[:1]:
        raise AttackError(
            f"{name} of shape ({len(images)},) and type int64 were expected, "
            f"got {tuple(classes.shape)} and {classes.dtype}"
        )
    if len(classes) and not (classes.min() >= 0 and classes.max() < n_classes):
        low, high = int(classes.min()), int(classes.max())
        raise AttackError(f"{name} of this classifier are 0 to {n_classes - 1}, got {low} to {high}")


def check_count(name: str, value: int, *, at_least: int = 1) -> None:
    """Refuse a parameter that is not a whole number of at least `at_least`.

    Raises:
        AttackError: naming the range.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise AttackError(f"{name} is a whole number of at least {at_least}, got {value!r}")


def check_number(name: str, value: float, *, above: float | None = None, at_most: float = math.inf) -> None:
    """Refuse a parameter that is not a finite number in (above, at_most], or in [0, at_most] without `above`.

    Raises:
        AttackError: naming the range.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    is_high_enough = is_number and (value >= 0 if above is None else value > above)
    if not is_high_enough or value > at_most:
        low = "at least 0" if above is None else f"above {above:g}"
        high = "" if math.isinf(at_most) else f" and at most {at_most:g}"
        raise AttackError(f"{name} is a number {low}{high}, got {value!r}")


def check_flag(name: str, value: bool) -> None:
    """Refuse a parameter that is not true or false.

    Raises:
        AttackError: naming the two values.
    """
    if not isinstance(value, bool):
        raise AttackError(f"{name} is true or false, got {value!r}")
