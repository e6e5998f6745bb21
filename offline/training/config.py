"""How a classifier is trained, and the learning rate of each step."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from modeguard.offline.training.augmentation import Augmentation
from modeguard.offline.training.checkpoints import TrainingError

__all__ = ["SCHEDULES", "TrainingConfig", "learning_rate_at"]


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How a classifier is trained.

    Attributes:
        epochs: passes over the training images, in which the rate follows the schedule.
        batch_size: images a step; the batches of an epoch differ by one image at the most, and none has just one.
        learning_rate: the highest.
        momentum: of SGD, Nesterov's way, in (0, 1).
        weight_decay: of all parameters.
        schedule: a key of `SCHEDULES`.
        warmup_fraction: of the training, in which the rate rises to the highest one.
        milestones: for "multistep", the fractions of the training after which the rate falls.
        decay: for "multistep", what the rate is multiplied with at each milestone.
        crop_padding: pixels that an image is shifted in each direction at the most.
        crop_fill: what comes in at the edge: "zero" (black) or "reflect" (the image mirrored).
        flip: whether an image is mirrored left to right in every other epoch; half of them begin mirrored.
        rotation_degrees: largest angle in either direction.
        averaged_epochs: further passes at one rate, whose weights are averaged (Izmailov et al. 2018, algorithm 1).
        averaged_learning_rate: that rate.
        prune_ratio: share of the images with a loss below the mean that an epoch leaves out, in [0, 1); see
            `modeguard.offline.training.pruning`.
        precision: of the convolutions; "auto" is bfloat16 where the hardware multiplies it natively.
        seed: of weights, order and augmentation.
    """

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["onecycle", "multistep"] = "onecycle"
    warmup_fraction: float = 0.2
    milestones: tuple[float, ...] = (0.3, 0.6, 0.8)
    decay: float = 0.2
    crop_padding: int = 0
    crop_fill: Literal["zero", "reflect"] = "zero"
    flip: bool = False
    rotation_degrees: float = 0.0
    averaged_epochs: int = 0
    averaged_learning_rate: float = 0.02
    prune_ratio: float = 0.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (is_valid, expected) in _CHECKS.items():
            value = getattr(self, name)
            if not is_valid(value):
                raise TrainingError(f"{name} is {expected}, got {value!r}")

    @property
    def n_epochs(self) -> int:
        """All passes over the training images."""
        return self.epochs + self.averaged_epochs

    @property
    def augmentation(self) -> Augmentation:
        """What may happen to a training image."""
        return Augmentation(self.crop_padding, self.crop_fill, self.flip, self.rotation_degrees)


_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "epochs": (lambda n: n >= 1, "at least 1"),
    "batch_size": (lambda n: n >= 2, "at least 2, as batch norm needs"),
    "learning_rate": (lambda rate: 0 < rate < math.inf, "positive"),
    "momentum": (lambda momentum: 0 < momentum < 1, "above 0 and below 1"),
    "weight_decay": (lambda decay: 0 <= decay < math.inf, "at least 0"),
    "schedule": (lambda name: name in SCHEDULES, "onecycle or multistep"),
    "warmup_fraction": (lambda part: 0 <= part < 1, "at least 0 and below 1"),
    "milestones": (lambda parts: all(0 < part < 1 for part in parts), "fractions above 0 and below 1"),
    "decay": (lambda factor: 0 < factor < 1, "above 0 and below 1"),
    "crop_padding": (lambda n: n >= 0, "at least 0"),
    "crop_fill": (lambda fill: fill in ("zero", "reflect"), "zero or reflect"),
    "rotation_degrees": (lambda angle: 0 <= angle <= 180, "from 0 to 180"),
    "averaged_epochs": (lambda n: n >= 0, "at least 0"),
    "averaged_learning_rate": (lambda rate: 0 < rate < math.inf, "positive"),
    "prune_ratio": (lambda ratio: 0 <= ratio < 1, "at least 0 and below 1"),
    "precision": (lambda name: name in ("auto", "float32", "bfloat16"), "auto, float32 or bfloat16"),
    "seed": (lambda seed: 0 <= seed < 2**63, "at least 0 and below 2**63"),
}


def _onecycle(done: float, config: TrainingConfig) -> float:
    """After the warm-up half a cosine down to 0 (Smith & Topin 2019, with the cosine of Loshchilov & Hutter 2017)."""
    rest = (done - config.warmup_fraction) / (1 - config.warmup_fraction)
    return config.learning_rate * (1 + math.cos(math.pi * rest)) / 2


def _multistep(done: float, config: TrainingConfig) -> float:
    return config.learning_rate * config.decay ** sum(done >= milestone for milestone in config.milestones)


SCHEDULES: dict[str, Callable[[float, TrainingConfig], float]] = {"onecycle": _onecycle, "multistep": _multistep}
"""The rate after a fraction of the training, once the warm-up is over."""


def learning_rate_at(done: float, config: TrainingConfig) -> float:
    """The rate after a fraction of the scheduled epochs: warm-up, then the schedule; from 1 on that of averaging."""
    if done >= 1:
        return config.averaged_learning_rate
    if done < config.warmup_fraction:
        return config.learning_rate * done / config.warmup_fraction
    return SCHEDULES[config.schedule](done, config)
