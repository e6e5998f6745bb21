"""DeepFool in L2: steps to the nearest of the linearised decision boundaries."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from modeguard.detector.rows import Classifier
from modeguard.offline.attacks.base import Norm, check_attack_inputs, check_count, check_number, logits_of, per_image

_TINY = 1e-8  # keeps a vanishing gradient from dividing by zero
_EXTRA_DISTANCE = 1e-4  # pixels beyond the linearised boundary: a step of length zero would never cross it


@dataclass(frozen=True, slots=True)
class DeepFool:
    """The L2 attack of Moosavi-Dezfooli et al. 2016, Algorithm 2, on differences of logits.

    An image where the attack fails comes back as its last iterate.
    """

    norm: ClassVar[Norm] = "l2"
    n_steps: int = 50
    n_candidates: int = 10
    """How many of the likeliest classes, the true one included, are considered."""
    overshoot: float = 0.02
    """The whole perturbation is lengthened by this fraction."""

    def __post_init__(self) -> None:
        check_count("n_steps", self.n_steps)
        check_count("n_candidates", self.n_candidates, at_least=2)
        check_number("overshoot", self.overshoot, at_most=1)

    def attack(
        self,
        classifier: Classifier,
        images: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """See `Attack.attack`; deterministic. An image leaves the batch as soon as it is adversarial."""
        check_attack_inputs(classifier, images, labels)
        adversarial = images.detach().clone()
        if len(images) == 0:
            return adversarial
        live = torch.arange(len(images), device=images.device)
        candidates = labels.new_empty((len(images), min(self.n_candidates, classifier.n_classes)))
        perturbation = torch.zeros_like(adversarial)
        with torch.enable_grad():
            for step in range(self.n_steps):
                current, logits = _logits_with_graph(classifier, adversarial[live])
                if step == 0:
                    candidates = logits.detach().topk(candidates.shape[1], dim=1).indices
                is_live = logits.argmax(dim=1) == labels[live]
                if not is_live.all():
                    live = live[is_live]
                    if len(live) == 0:
                        break
                    # a forward pass more is cheaper than n_candidates - 1 backward passes through finished images
                    current, logits = _logits_with_graph(classifier, adversarial[live])
                perturbation[live] += _nearest_boundary(current, logits, candidates[live])
                moved = images[live] + (1 + self.overshoot) * perturbation[live]
                adversarial[live] = moved.detach().clamp_(0, 1)
        return adversarial


def _logits_with_graph(classifier: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    images = images.requires_grad_()
    return images, logits_of(classifier, images)


def _nearest_boundary(images: Tensor, logits: Tensor, candidates: Tensor) -> Tensor:
    """Step (n, c, h, w) to the nearest linearised boundary (Moosavi-Dezfooli et al. 2016, equations 8 and 9).

    One backward pass a candidate over the one graph; only the nearest so far is kept, so that memory does not
    grow with the number of candidates.
    """
    chosen = logits.gather(1, candidates)
    gaps = chosen[:, 1:] - chosen[:, :1]
    nearest = images.new_full((len(images),), torch.inf)
    step = torch.zeros_like(images)
    n_others = gaps.shape[1]
    for k in range(n_others):
        (gradient,) = torch.autograd.grad(gaps[:, k].sum(), images, retain_graph=k < n_others - 1)
        length = torch.linalg.vector_norm(gradient.flatten(1), dim=1) + _TINY
        distance = gaps[:, k].detach().abs().to(length.dtype) / length
        is_nearer = distance < nearest
        nearest = torch.where(is_nearer, distance, nearest)
        scale = (distance + _EXTRA_DISTANCE) / length
        step = torch.where(per_image(is_nearer), per_image(scale) * gradient, step)
    return step
