"""The L2 attack of Carlini & Wagner: Adam in tanh space, a binary search over the constant for each image."""

import math
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from modeguard.offline.attacks.attack import Draws, Norm
from modeguard.offline.attacks.goals import Goal
from modeguard.offline.attacks.gradients import per_image
from modeguard.offline.attacks.parameters import Flag, Number, Whole, check_parameters

_INSIDE = 0.999999  # keeps pixels 0 and 1 finite in tanh space
_PROGRESS = 0.9999  # a loss that stays above this fraction of what it was has stopped improving
_N_CHECKS = 10  # of progress, in one search step
_BETA1, _BETA2, _ADAM_EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True, slots=True)
class CarliniWagner:
    """Smallest L2 perturbation found by Adam over a binary search of the constant (Carlini & Wagner 2017, §VI.A).

    Every image has its own search: with `abort_early` it goes on to the next constant as soon as its own loss
    has stopped improving, and leaves the batch when its search is over. An image where no adversarial was found
    comes back unchanged.
    """

    norm: ClassVar[Norm] = "l2"
    n_steps: int = 1000
    """Adam steps for one constant."""
    n_search_steps: int = 9
    """Constants tried."""
    learning_rate: float = 0.01
    confidence: float = 0.0
    """How far below zero the goal's gap must be: by how much the logit of another class exceeds that of the label."""
    initial_constant: float = 1e-3
    abort_early: bool = True

    def __post_init__(self) -> None:
        check_parameters(
            self,
            n_steps=Whole(),
            n_search_steps=Whole(),
            learning_rate=Number(above=0),
            confidence=Number(),
            initial_constant=Number(above=0),
            abort_early=Flag(),
        )

    def perturb(self, goal: Goal, images: Tensor, draws: Draws) -> Tensor:
        """See `Attack.perturb`; deterministic."""
        adversarial = images.clone()
        search = _start(images, self.initial_constant)
        while len(search.row):
            for _ in range(self._steps_to_next_check(search.step)):
                self._adam_step(goal, search)
            self._finish_constants(search)
            is_live = search.n_tried < self.n_search_steps
            if not is_live.all():
                done = search.take(~is_live & search.best_distance.isfinite())
                adversarial[done.row] = done.best
                search, goal = search.take(is_live), goal.pick(is_live)
        return adversarial

    @property
    def _check_interval(self) -> int:
        """Steps between two checks of an image's progress."""
        return math.ceil(self.n_steps / _N_CHECKS)

    def _steps_to_next_check(self, step: Tensor) -> int:
        interval = self._check_interval
        return int(torch.minimum(self.n_steps - step, interval - step % interval).min())

    def _adam_step(self, goal: Goal, search: "_Search") -> None:
        """One step of every image that is left; the iterate that it starts from may become the image's best."""
        # in tanh space every point is an image, so that nothing is clipped
        squashed = (search.natural + search.delta).tanh_()
        images = squashed * 0.5 + 0.5
        gaps, gradient = _gaps_and_gradient(goal, images, search.constant, self.confidence)
        difference = images - search.reconstructed
        squared = difference.square().flatten(1).sum(dim=1)
        search.loss = gaps.relu() * search.constant + squared
        search.reference_loss = torch.where(search.step == 0, search.loss, search.reference_loss)

        is_found = gaps < 0
        is_better = is_found & (squared < search.best_distance)
        search.is_found |= is_found
        search.best = torch.where(per_image(is_better), images, search.best)
        search.best_distance = torch.where(is_better, squared, search.best_distance)

        # d images / d delta = (1 - tanh²) / 2
        gradient = gradient.add(difference, alpha=2).mul_(squashed.square_().neg_().add_(1)).mul_(0.5)
        # Adam written out, because each image is at a step of its own
        search.step += 1
        search.mean.lerp_(gradient, 1 - _BETA1)
        search.variance.mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
        rate = self.learning_rate / (1 - _BETA1**search.step)
        root = (search.variance / per_image(1 - _BETA2**search.step)).sqrt_().add_(_ADAM_EPSILON)
        search.delta -= (search.mean / root).mul_(per_image(rate))

    def _finish_constants(self, search: "_Search") -> None:
        """Give the images that are done with their constant the next one (Carlini & Wagner 2017, §VI.A)."""
        # each image is at a constant of its own; torch.where, as picking by a mask would make the host wait
        is_over = search.step >= self.n_steps
        # an image is checked at steps of its own, whenever the others of its batch are
        is_due = is_over | (search.step % self._check_interval == 0)
        if self.abort_early:
            is_over |= is_due & ~(search.loss <= _PROGRESS * search.reference_loss)
        search.reference_loss = torch.where(is_due, search.loss, search.reference_loss)
        search.upper = torch.where(is_over & search.is_found, search.constant, search.upper)
        search.lower = torch.where(is_over & ~search.is_found, search.constant, search.lower)
        middle = (search.lower + search.upper) / 2
        following = torch.where(search.upper.isinf(), search.constant * 10, middle)
        search.constant = torch.where(is_over, following, search.constant)
        search.n_tried += is_over
        for started_afresh in (search.step, search.is_found, search.delta, search.mean, search.variance):
            started_afresh[is_over] = 0


@dataclass(slots=True, eq=False)
class _Search:
    """Where the search of each image that is left stands; every tensor has one row an image."""

    row: Tensor  # (n,) its row in the batch
    natural: Tensor  # (n, c, h, w) in tanh space
    reconstructed: Tensor  # (n, c, h, w) the natural image as it comes back from tanh space
    delta: Tensor  # (n, c, h, w) perturbation in tanh space
    mean: Tensor  # (n, c, h, w) Adam's first moment
    variance: Tensor  # (n, c, h, w) Adam's second moment
    step: Tensor  # (n,) Adam steps taken with this constant
    loss: Tensor  # (n,) at the last step
    reference_loss: Tensor  # (n,) at the last check of progress, or at the first step
    constant: Tensor
    lower: Tensor
    upper: Tensor
    is_found: Tensor  # (n,) with this constant
    n_tried: Tensor  # (n,) constants done with
    best: Tensor  # (n, c, h, w)
    best_distance: Tensor  # (n,) squared; inf while there is none

    def take(self, is_taken: Tensor) -> "_Search":
        return _Search(*(getattr(self, field.name)[is_taken] for field in fields(self)))


def _start(images: Tensor, initial_constant: float) -> _Search:
    natural = ((images * 2 - 1) * _INSIDE).atanh_()
    zeros = torch.zeros(len(images), device=images.device, dtype=images.dtype)
    row = torch.arange(len(images), device=images.device)
    return _Search(
        row=row,
        natural=natural,
        reconstructed=natural.tanh() * 0.5 + 0.5,
        delta=torch.zeros_like(images),
        mean=torch.zeros_like(images),
        variance=torch.zeros_like(images),
        step=torch.zeros_like(row),
        loss=zeros,
        reference_loss=zeros,
        constant=zeros + initial_constant,
        lower=zeros,
        upper=zeros + torch.inf,
        is_found=zeros.bool(),
        n_tried=torch.zeros_like(row),
        best=images,
        best_distance=zeros + torch.inf,
    )


def _gaps_and_gradient(goal: Goal, images: Tensor, constant: Tensor, confidence: float) -> tuple[Tensor, Tensor]:
    """The goal's gap (n,) plus the confidence, and the gradient (n, c, h, w) of constant · max(that, 0)."""
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        gaps = goal.gap(images) + confidence
    is_pushed = gaps > 0
    if not is_pushed.any():  # a backward pass would only bring back zeros
        return gaps.detach(), torch.zeros_like(images)
    (gradient,) = torch.autograd.grad(gaps, images, (constant * is_pushed).to(gaps.dtype))
    return gaps.detach(), gradient
