"""Attacks on a classifier, by name.

Each is a frozen record of parameters with one method, `attack`; see `Attack`. A recipe's table of parameters makes
one: `ATTACKS["pgd"](epsilon=0.01)`. `run_attack` runs it over a whole data set and says where it succeeded.

To add one: write a file here with a frozen dataclass that has a `norm` and an `attack` method like the others,
its parameters plain numbers checked in `__post_init__`, and add one line to `ATTACKS`. Its iterations may be
`projected_gradient` with a loss of your own.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from modeguard.offline.attacks.base import Attack, AttackError, AttackResult, distances, is_adversarial, run_attack
from modeguard.offline.attacks.carlini_wagner import CarliniWagner
from modeguard.offline.attacks.deepfool import DeepFool
from modeguard.offline.attacks.linf import Bim, Fgsm, Pgd, projected_gradient
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
    "AttackResult",
    "Bim",
    "CarliniWagner",
    "DeepFool",
    "Fgsm",
    "Pgd",
    "TargetedAdam",
    "distances",
    "is_adversarial",
    "projected_gradient",
    "run_attack",
]
