"""What names a classifier: its architecture, its classes, and the pixels its network was trained on."""

import math
from dataclasses import dataclass

from modeguard.templates_store.classifiers.errors import ClassifierError

__all__ = ["ClassifierSpec"]


@dataclass(frozen=True, slots=True)
class ClassifierSpec:
    """Everything but the weights.

    Attributes:
        architecture: as a recipe writes it, for example "digits-cnn" or "torchvision:resnet18"; `parse_architecture`
            knows the forms, and whoever reads a recipe or a manifest asks it.
        n_classes: number of logits, at least 2.
        input_shape: (channels, height, width) of the images.
        mean: one number a channel, on the [0, 1] pixel scale; the network sees (pixels - mean) / std.
        std: one positive number a channel.
    """

    architecture: str
    n_classes: int
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse what can be no classifier."""
        if not isinstance(self.architecture, str) or not self.architecture:
            raise ClassifierError(f"architecture is a name, got {self.architecture!r}")
        if not _is_count(self.n_classes) or self.n_classes < 2:
            raise ClassifierError(f"n_classes is a whole number of at least 2, got {self.n_classes!r}")
        if len(self.input_shape) != 3 or not all(_is_count(side) and side > 0 for side in self.input_shape):
            raise ClassifierError(
                f"input_shape is (channels, height, width), positive numbers, got {self.input_shape!r}"
            )
        for name in ("mean", "std"):
            self._check_channels(name, getattr(self, name))
        if min(self.std) <= 0:
            raise ClassifierError(f"std is positive, got {self.std}; it divides the pixels")

    def _check_channels(self, name: str, values: tuple[float, ...]) -> None:
        channels = self.input_shape[0]
        if len(values) != channels or not all(_is_number(value) for value in values):
            raise ClassifierError(
                f"{name} has one finite number for each of the {channels} channels of input_shape, got {values!r}"
            )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
