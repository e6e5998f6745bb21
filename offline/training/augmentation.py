"""Crops, flips and rotations of a whole batch at once; what is random is drawn from a generator and nothing else."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from modeguard.detector import to_pixels

__all__ = ["Augmentation", "augment"]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What may happen to a training image.

    Attributes:
        crop_padding: pixels that an image may be shifted in each direction.
        crop_fill: what comes in at the edge: black, or the image mirrored.
        flip: whether it may be mirrored left to right.
        rotation_degrees: largest angle, in either direction; black comes in at the corners.
    """

    crop_padding: int = 0
    crop_fill: Literal["zero", "reflect"] = "zero"
    flip: bool = False
    rotation_degrees: float = 0.0


def augment(images: Tensor, augmentation: Augmentation, is_mirrored: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a shift and an angle for each image, and mirror the ones that are to be.

    Args:
        images: (n, c, h, w) uint8; h and w above `crop_padding`.
        augmentation: what may happen.
        is_mirrored: (n,) bool, which images are mirrored if `augmentation.flip`. The caller takes turns: an image that
            is met both ways in two epochs teaches more than one mirrored by chance (Jordan 2024, section 3.6).
        generator: on the device of the images.

    Returns:
        (n, c, h, w) float32 pixels in [0, 1].
    """
    n, _, height, width = images.shape
    if augmentation.crop_padding or augmentation.flip:
        rows = _shifted(n, height, augmentation.crop_padding, generator)
        columns = _shifted(n, width, augmentation.crop_padding, generator)
        if augmentation.flip:
            columns = torch.where(is_mirrored[:, None], columns.flip(1), columns)
        images = _gather(images, rows, columns, augmentation.crop_fill)
    pixels = to_pixels(images)
    if augmentation.rotation_degrees:
        pixels = _rotated(pixels, augmentation.rotation_degrees, generator)
    return pixels


def _shifted(n: int, length: int, padding: int, generator: torch.Generator) -> Tensor:
    """Positions (n, length) to read from: a run from -padding to padding on; some lie outside the image."""
    device = generator.device
    shifts = torch.randint(-padding, padding + 1, (n, 1), generator=generator, device=device)
    return torch.arange(length, device=device) + shifts


def _gather(images: Tensor, rows: Tensor, columns: Tensor, fill: str) -> Tensor:
    """The images read at rows (n, h) and columns (n, w); the result is laid out channels-last."""
    height, width = images.shape[2:]
    every = torch.arange(len(images), device=images.device)[:, None, None]
    if fill == "reflect":
        rows, columns = _reflected(rows, height), _reflected(columns, width)
        return images[every, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    inside_rows, inside_columns = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    gathered = images[every, :, rows[:, :, None], columns[:, None, :]]
    gathered *= (inside_rows[:, :, None] & inside_columns[:, None, :]).unsqueeze(3)
    return gathered.permute(0, 3, 1, 2)


def _reflected(positions: Tensor, length: int) -> Tensor:
    """Positions outside mirrored at the first and the last pixel, which are not repeated."""
    last = length - 1
    return last - (last - positions.abs()).abs()


def _rotated(pixels: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    n, _, height, width = pixels.shape
    drawn = torch.rand(n, generator=generator, device=generator.device) * 2 - 1
    angles = drawn * math.radians(degrees)
    cosines, sines, zeros = angles.cos(), angles.sin(), torch.zeros_like(angles)
    # affine_grid counts in halves of each side, so a rotation of a picture that is not square needs the proportion
    matrices = torch.stack(
        [cosines, -sines * height / width, zeros, sines * width / height, cosines, zeros], dim=1
    ).view(n, 2, 3)
    grid = F.affine_grid(matrices, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
