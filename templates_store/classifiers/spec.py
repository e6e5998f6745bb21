"""What names a classifier: its architecture, its classes, and the pixels its network was trained on."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from modeguard.detector.errors import ModeguardError

__all__ = ["EXPORT", "ClassifierError", "ClassifierSpec"]

EXPORT = "torch.export"


class ClassifierError(ModeguardError, ValueError):
    """A classifier that cannot be built or loaded, or that is not what the method needs."""


@dataclass(frozen=True, slots=True)
class ClassifierSpec:
    """Everything but the weights.

    Attributes:
        architecture: a key of `ARCHITECTURES`, "torchvision:NAME", "timm:NAME", "package.module:factory" or
            "torch.export".
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

    @property
    def weights_suffix(self) -> str:
        """The usual ending of a file with these weights: ".pt2" for an exported program, else ".safetensors"."""
        return ".pt2" if self.architecture == EXPORT else ".safetensors"

    def to_dict(self) -> dict[str, Any]:
        """A dictionary that JSON can hold; `from_dict` reads it back."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            ClassifierError: if a key is missing or unknown, or a value is of the wrong kind.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        missing, unknown = sorted(names - set(entries)), sorted(set(entries) - names)
        if missing or unknown:
            raise ClassifierError(f"a classifier has the keys {sorted(names)}; missing: {missing}, unknown: {unknown}")
        values = dict(entries)
        for name in ("input_shape", "mean", "std"):
            if not isinstance(values[name], list | tuple):
                raise ClassifierError(f"{name} of a classifier is a list of numbers, got {values[name]!r}")
            values[name] = tuple(values[name])
        return cls(**values)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
