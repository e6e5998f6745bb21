"""Adversarial attacks by name, what they want, and running one over a whole data set.

Three things that know little of each other: a `Goal` says what is wanted of an image, an `Attack` searches for it, and
`run_attack` does what every search needs done around it: checks, leaving out images that meet the goal already,
slices, measuring success. A recipe's table of parameters makes an attack: `ATTACKS["pgd"](epsilon=0.01)`.

Nothing here reads files or data sets, and no attack checks images, drops them or cuts them into slices.

To add an attack: write a file here with a frozen dataclass that has a `norm` and a method `perturb` like the others,
its parameters plain numbers checked in `__post_init__`, and add one line to `ATTACKS`. Its iterations may be
`projected_gradient` of `linf` with a loss of your own. To add a goal: a subclass of `Goal` in `goals`.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from modeguard.offline.attacks.attack import Attack, Draws
from modeguard.offline.attacks.carlini_wagner import CarliniWagner
from modeguard.offline.attacks.deepfool import DeepFool
from modeguard.offline.attacks.errors import AttackError
from modeguard.offline.attacks.goals import ClassifiedAs, Goal, Misclassified, is_misclassified
from modeguard.offline.attacks.linf import Bim, Fgsm, Pgd
from modeguard.offline.attacks.runner import AttackedImages, distances, run_attack
from modeguard.offline.attacks.targeted_adam import TargetedAdam

ATTACKS: Mapping[str, Callable[..., Attack]] = MappingProxyType(
    {
        "fgsm": Fgsm,
        "bim": Bim,
        "pgd": Pgd,
        "deepfool": DeepFool,
        "cw": CarliniWagner,
        "targeted_adam": TargetedAdam,
    }
)
"""Name to type, with the parameters' published defaults."""

__all__ = [
    "ATTACKS",
    "Attack",
    "AttackError",
    "AttackedImages",
    "Bim",
    "CarliniWagner",
    "ClassifiedAs",
    "DeepFool",
    "Draws",
    "Fgsm",
    "Goal",
    "Misclassified",
    "Pgd",
    "TargetedAdam",
    "distances",
    "is_misclassified",
    "run_attack",
]
