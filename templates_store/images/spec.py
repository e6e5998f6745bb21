"""The images that a classifier takes."""

from dataclasses import dataclass

from modeguard.detector import ModeguardError


class InputSpecError(ModeguardError, ValueError):
    """An input specification that makes no sense."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The images that a classifier takes, and how other images are made to fit.

    Attributes:
        shape: (c, h, w); c is 1 (luma) or 3 (RGB).
        resize_to: length of the shorter side after resizing, before the centre of (h, w) is cut out; None to resize the
            whole image to (h, w), whatever its proportions.
        allow_resize: with False and no `resize_to`, images must have (h, w) exactly.

    Raises:
        InputSpecError: for a shape that no classifier has, or a `resize_to` too small to cut (h, w) out.
    """

    shape: tuple[int, int, int]
    resize_to: int | None = None
    allow_resize: bool = True

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or self.shape[0] not in {1, 3} or min(self.shape) < 1:
            raise InputSpecError(f"shape is (c, h, w) with c 1 or 3 and h and w at least 1, got {self.shape}")
        if self.resize_to is not None and self.resize_to < max(self.shape[1:]):
            raise InputSpecError(
                f"resize_to is at least the larger side of {self.shape[1:]}, so that the centre can be cut out, "
                f"got {self.resize_to}"
            )
