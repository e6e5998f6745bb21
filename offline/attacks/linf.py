"""The gradient-sign attacks inside an L∞ ball: FGSM, BIM and PGD, and the ascent that they share."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from modeguard.offline.attacks.attack import Draws, Norm
from modeguard.offline.attacks.goals import Goal
from modeguard.offline.attacks.gradients import RowLoss, input_gradient
from modeguard.offline.attacks.parameters import Allowed, Flag, Number, Whole, check_parameters

_EPSILON = Number(above=0, at_most=1)
_ASCENT: dict[str, Allowed] = {
    "epsilon": _EPSILON,
    "n_steps": Whole(),
    "relative_step": Number(above=0, at_most=2),
}


@dataclass(frozen=True, slots=True)
class Fgsm:
    """One step of `epsilon` along the sign of the loss's gradient (Goodfellow et al. 2015, §4).

    An image where the attack fails comes back perturbed all the same.
    """

    norm: ClassVar[Norm] = "linf"
    epsilon: float = 0.03

    def __post_init__(self) -> None:
        check_parameters(self, epsilon=_EPSILON)

    def perturb(self, goal: Goal, images: Tensor, draws: Draws) -> Tensor:
        """See `Attack.perturb`; deterministic."""
        return projected_gradient(goal.loss, images, images, epsilon=self.epsilon, step_size=self.epsilon, n_steps=1)


@dataclass(frozen=True, slots=True)
class Bim:
    """The basic iterative method: FGSM in small steps from the image itself (Kurakin et al. 2017, §2.2).

    The last iterate is returned, whether it meets the goal or not: it has the highest loss, and is what the
    published benchmarks keep.
    """

    norm: ClassVar[Norm] = "linf"
    epsilon: float = 0.03
    n_steps: int = 10
    relative_step: float = 0.2
    """Step size as a fraction of epsilon."""

    def __post_init__(self) -> None:
        check_parameters(self, **_ASCENT)

    def perturb(self, goal: Goal, images: Tensor, draws: Draws) -> Tensor:
        """See `Attack.perturb`; deterministic."""
        step_size = self.relative_step * self.epsilon
        return projected_gradient(
            goal.loss, images, images, epsilon=self.epsilon, step_size=step_size, n_steps=self.n_steps
        )


@dataclass(frozen=True, slots=True)
class Pgd:
    """Projected gradient ascent from a random point of the ball (Madry et al. 2018, §2.1).

    The last iterate is returned, whether it meets the goal or not, as `Bim` does.
    """

    norm: ClassVar[Norm] = "linf"
    epsilon: float = 0.03
    n_steps: int = 40
    relative_step: float = 1 / 30
    """Step size as a fraction of epsilon."""
    random_start: bool = True

    def __post_init__(self) -> None:
        check_parameters(self, **_ASCENT, random_start=Flag())

    def perturb(self, goal: Goal, images: Tensor, draws: Draws) -> Tensor:
        """See `Attack.perturb`; the random start comes from the draws."""
        start = uniform_start(images, self.epsilon, draws) if self.random_start else images
        step_size = self.relative_step * self.epsilon
        return projected_gradient(
            goal.loss, images, start, epsilon=self.epsilon, step_size=step_size, n_steps=self.n_steps
        )


def projected_gradient(
    loss: RowLoss, natural: Tensor, start: Tensor, *, epsilon: float, step_size: float, n_steps: int
) -> Tensor:
    """Climb a loss by sign-gradient steps that stay in the L∞ ball around the natural images and in [0, 1].

    Madry et al. 2018, equation of §2.1. To descend a loss, pass its negative.

    Args:
        loss: what to climb; any differentiable loss of the images, a goal's or another.
        natural: (n, c, h, w) in [0, 1], centres of the balls.
        start: (n, c, h, w), where to begin.
        epsilon: radius on the [0, 1] pixel scale.
        step_size: on the [0, 1] pixel scale.
        n_steps: number of gradients taken; 0 returns the projected start.

    Returns:
        (n, c, h, w), the last iterate, detached.
    """
    # the ball and the pixel range are both boxes, so one clamp projects onto what they have in common
    lowest, highest = (natural - epsilon).clamp(min=0), (natural + epsilon).clamp(max=1)
    images = start.detach().clamp(lowest, highest)
    for _ in range(n_steps):
        images = images.add(input_gradient(loss, images).sign_(), alpha=step_size).clamp_(lowest, highest)
    return images


def uniform_start(images: Tensor, epsilon: float, draws: Draws) -> Tensor:
    """The images (n, c, h, w) plus noise uniform in [-epsilon, epsilon], clipped to [0, 1]."""
    noise = draws.uniform(*images.shape[1:], dtype=images.dtype)
    return (images + (2 * noise - 1) * epsilon).clamp_(0, 1)
