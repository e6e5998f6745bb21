"""DeepFool in L2: steps to the nearest of the linearised decision boundaries."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from modeguard.offline.attacks.attack import Draws, Norm
from modeguard.offline.attacks.goals import Goal
from modeguard.offline.attacks.gradients import per_image
from modeguard.offline.attacks.parameters import Number, Whole, check_parameters

_TINY = 1e-8  # keeps a vanishing gradient from dividing by zero
_EXTRA_DISTANCE = 1e-4  # pixels beyond the linearised boundary: a step of length zero would never cross it


@dataclass(frozen=True, slots=True)
class DeepFool:
    """The L2 attack of Moosavi-Dezfooli et al. 2016, Algorithm 2, on differences of logits.

    A boundary is where a gap of the goal is zero. For a goal that can be met in one way only this is the paper's
    Algorithm 1. An image where the attack fails comes back as its last iterate.
    """

    norm: ClassVar[Norm] = "l2"
    n_steps: int = 50
    n_candidates: int = 10
    """How many of the likeliest classes, the true one included, are considered."""
    overshoot: float = 0.02
    """The whole perturbation is lengthened by this fraction."""

    def __post_init__(self) -> None:
        check_parameters(self, n_steps=Whole(), n_candidates=Whole(at_least=2), overshoot=Number(at_most=1))

    def perturb(self, goal: Goal, images: Tensor, draws: Draws) -> Tensor:
        """See `Attack.perturb`; deterministic. An image leaves the batch as soon as it meets the goal."""
        adversarial, perturbation = images.clone(), torch.zeros_like(images)
        live = torch.arange(len(images), device=images.device)
        candidates = live.new_empty((len(images), 0))
        with torch.enable_grad():
            for step in range(self.n_steps):
                current, gaps = _gaps_with_graph(goal, adversarial[live])
                if step == 0:
                    candidates = gaps.topk(min(self.n_candidates - 1, gaps.shape[1]), largest=False).indices
                is_live = (gaps >= 0).all(dim=1)
                if not is_live.all():
                    live, candidates, goal = live[is_live], candidates[is_live], goal.pick(is_live)
                    if len(live) == 0:
                        break
                    # a forward pass more is cheaper than a backward pass a candidate through finished images
                    current, gaps = _gaps_with_graph(goal, adversarial[live])
                perturbation[live] += _nearest_boundary(current, gaps.gather(1, candidates))
                adversarial[live] = (images[live] + (1 + self.overshoot) * perturbation[live]).clamp_(0, 1)
        return adversarial


def _gaps_with_graph(goal: Goal, images: Tensor) -> tuple[Tensor, Tensor]:
    images = images.requires_grad_()
    return images, goal.gaps(images)


def _nearest_boundary(images: Tensor, gaps: Tensor) -> Tensor:
    """Step (n, c, h, w) to the nearest linearised boundary (Moosavi-Dezfooli et al. 2016, equations 8 and 9).

    One backward pass a gap over the one graph; only the nearest so far is kept, so that memory does not grow with
    the number of candidates.
    """
    nearest = images.new_full((len(images),), torch.inf)
    step = torch.zeros_like(images)
    n_gaps = gaps.shape[1]
    for k in range(n_gaps):
        (gradient,) = torch.autograd.grad(gaps[:, k].sum(), images, retain_graph=k < n_gaps - 1)
        # along its gradient the linearised gap falls at this rate, so it is zero after gap / rate
        rate = torch.linalg.vector_norm(gradient.flatten(1), dim=1) + _TINY
        distance = gaps[:, k].detach().abs().to(rate.dtype) / rate
        is_nearer = distance < nearest
        nearest = torch.where(is_nearer, distance, nearest)
        scale = (distance + _EXTRA_DISTANCE) / rate
        step = torch.where(per_image(is_nearer), per_image(-scale) * gradient, step)
    return step
