"""What the tests of attacks share: brief attacks, running one on a toy, and a goal that knows no classifier."""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from modeguard.detector import Classifier
from modeguard.offline.attacks import ATTACKS, Attack, AttackedImages, Goal, Misclassified, run_attack

SHORT: dict[str, dict[str, Any]] = {
    "fgsm": {},
    "bim": {"n_steps": 3},
    "pgd": {"n_steps": 3},
    "deepfool": {"n_steps": 10},
    "cw": {"n_steps": 20, "n_search_steps": 3, "initial_constant": 0.3, "learning_rate": 0.03},
    "targeted_adam": {"n_steps": 5},
}
DETERMINISTIC = ("fgsm", "bim", "deepfool", "cw")


class LinearClassifier:
    """Logits linear in the pixels: boundaries are hyperplanes, so attacks have closed forms."""

    n_classes = 3
    input_shape = (1, 4, 4)

    def __init__(self) -> None:
        self.weight = torch.randn((3, 16), generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def __call__(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight.T


@dataclass(frozen=True, slots=True, eq=False)
class Bright(Goal):
    """Each image's mean pixel is above a level (n,) of its own."""

    levels: Tensor

    def check(self, images: Tensor) -> None:
        assert len(images) == len(self.levels)

    def pick(self, rows: Tensor) -> Self:
        return type(self)(self.levels[rows])

    def is_met(self, images: Tensor) -> Tensor:
        return images.flatten(1).mean(dim=1) > self.levels

    def gap(self, images: Tensor) -> Tensor:
        return self.levels - images.flatten(1).mean(dim=1)


def short_attack(name: str) -> Attack:
    return ATTACKS[name](**SHORT[name])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def predicted(classifier: Classifier, images: Tensor) -> Tensor:
    return classifier(images).argmax(dim=1)


def fool(
    attack: Attack, classifier: Classifier, images: Tensor, labels: Tensor, *, seed: int = 0, batch_size: int = 64
) -> AttackedImages:
    """The attack on images that are to be misclassified."""
    goal = Misclassified(classifier, labels)
    return run_attack(attack, goal, images, batch_size=batch_size, generator=seeded(seed))
