"""The one place where bytes become pixels and pixels become bytes."""

import torch
from torch import Tensor

from modeguard.detector.errors import DetectorInputError


def to_pixels(image_bytes: Tensor) -> Tensor:
    """8-bit images as float32 pixels.

    Args:
        image_bytes: any shape, uint8, 0 to 255.

    Returns:
        The same shape, float32 in [0, 1].

    Raises:
        DetectorInputError: if the input is not uint8.
    """
    if image_bytes.dtype != torch.uint8:
        raise DetectorInputError(f"bytes are torch.uint8, got {image_bytes.dtype}; pixels need no conversion")
    return image_bytes.to(torch.float32) / 255


def to_bytes(pixels: Tensor) -> Tensor:
    """Pixels rounded to the nearest of the 256 levels that an 8-bit file can hold.

    Args:
        pixels: any shape, floating point, [0, 1]; values outside are clipped.

    Returns:
        The same shape, uint8.
    """
    return (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
