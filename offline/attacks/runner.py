"""Running an attack on a whole data set: what is checked, left out, cut into slices and measured, once for all."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from modeguard.offline.attacks.attack import Attack, Draws, Norm
from modeguard.offline.attacks.errors import AttackError
from modeguard.offline.attacks.goals import Goal
from modeguard.offline.attacks.parameters import Whole, check_value


@dataclass(frozen=True, slots=True, eq=False)
class AttackedImages:
    """What became of n images; success is measured afresh on the finished ones.

    Attributes:
        images: (n, c, h, w) in [0, 1], in the natural images' type; unchanged where `is_attacked` is False.
        is_attacked: (n,) bool, the natural image did not meet the goal, so there was something to attack.
        is_successful: (n,) bool, attacked, changed, and the returned image meets the goal.
        distances: (n,) from the natural image, in the attack's norm; also of images where the attack failed.
    """

    images: Tensor
    is_attacked: Tensor
    is_successful: Tensor
    distances: Tensor

    @property
    def success_rate(self) -> float:
        """Successes as a fraction of the attacked images; NaN where there was none to attack."""
        n_attacked = int(self.is_attacked.sum())
        return int(self.is_successful.sum()) / n_attacked if n_attacked else math.nan


def run_attack(
    attack: Attack,
    goal: Goal,
    images: Tensor,
    *,
    batch_size: int,
    generator: torch.Generator,
    is_met: Tensor | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> AttackedImages:
    """Attack any number of images, at most `batch_size` at a time, and say which attacks succeeded.

        goal = Misclassified(classifier, labels)
        attacked = run_attack(Pgd(epsilon=0.01), goal, images, batch_size=256, generator=torch.Generator())

    Args:
        attack: one of `ATTACKS`, constructed.
        goal: what is wanted of these images.
        images: (n, c, h, w), floating point, [0, 1]; n may be 0.
        batch_size: bound on the rows of one batch, and so on the memory.
        generator: source of the random numbers of attacks that use any.
        is_met: (n,) bool, which images meet the goal as they are, from who knows it; None asks the goal, which costs
            a row an image.
        on_progress: called after each slice with the number of images finished so far.

    Returns:
        An image that meets the goal as it is comes back unchanged, bit for bit.

    Raises:
        DetectorInputError: if the images have another shape or type than the classifier takes.
        AttackError: if goal or `is_met` do not belong to the images, pixels lie outside [0, 1], or the parameters of
            the attack do not fit the goal.
    """
    _check(goal, images, batch_size, is_met)
    finished = images.detach().clone()
    is_attacked = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    is_met_now = torch.zeros_like(is_attacked)
    places = torch.arange(len(images), device=images.device)
    for start in range(0, len(images), batch_size):
        part = places[start : start + batch_size]
        is_done = goal.pick(part).is_met(finished[part]) if is_met is None else is_met[part]
        rows = (~is_done).nonzero().squeeze(1)
        if len(rows):  # a classifier need not take an empty batch
            attacked = part[rows]
            wanted = goal.pick(attacked)
            finished[attacked] = attack.perturb(wanted, finished[attacked], Draws(generator, len(part), rows))
            is_attacked[attacked] = True
            is_met_now[attacked] = wanted.is_met(finished[attacked])
        if on_progress is not None:
            on_progress(min(start + batch_size, len(images)))
    sizes = distances(images, finished, attack.norm)
    return AttackedImages(
        images=finished,
        is_attacked=is_attacked,
        # what `is_met` calls open may be none: an image that an attack found nothing to do with is not its success
        is_successful=is_met_now & (sizes > 0),
        distances=sizes,
    )


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


def _check(goal: Goal, images: Tensor, batch_size: int, is_met: Tensor | None) -> None:
    goal.check(images)
    check_value("batch_size", batch_size, Whole())
    if is_met is not None and (is_met.dtype != torch.bool or is_met.shape != images.shape[:1]):
        raise AttackError(
            f"is_met of shape ({len(images)},) and type bool was expected, got {tuple(is_met.shape)} and {is_met.dtype}"
        )
    if len(images) and not (images.min() >= 0 and images.max() <= 1):
        low, high = float(images.min()), float(images.max())
        raise AttackError(f"pixels lie in [0, 1], got {low:.4g} to {high:.4g}; divide bytes by 255 first")
