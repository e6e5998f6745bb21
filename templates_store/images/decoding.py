"""How the bytes of an image file become the bytes that a classifier is asked about.

One documented way, the same when a detector is built and when it is asked, because a detector that sees other pixels
than the classifier judges another picture:

* PNG, JPEG and WebP, found by content, never by name. The number of pixels is read from the header and checked before
  anything is decoded.
* The EXIF orientation is applied.
* Grey, black-and-white and palette images become RGB; a classifier of one channel gets the luma of ITU-R BT.601.
* 16-bit samples keep their high byte.
* Alpha that is opaque everywhere is dropped. Any other transparency is refused: what shows through depends on a
  background that the file does not name, and a picture that differs with the viewer can hide an attack.
* CMYK is refused: its colours depend on a profile. Embedded profiles of RGB files are ignored, as classifiers do.
* Animations are refused: a verdict on one frame says nothing about the others.
* `resize_to` makes the shorter side that long (bilinear, antialiased) and cuts out the centre, as is usual for
  ImageNet; otherwise the whole image is resized to the classifier's size, or must have it.
"""

import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from PIL import Image, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError, WebPImagePlugin
from torch import Tensor

from modeguard.detector.errors import ModeguardError
from modeguard.templates_store.images.headers import ImageHeader, InvalidImage, damaged, read_header

__all__ = ["ALLOWED_FORMATS", "DEFAULT_MAX_PIXELS", "InputSpec", "InputSpecError", "InvalidImage", "decode_image"]

# importing a plugin registers it, so that Pillow never goes looking for others
ALLOWED_FORMATS = frozenset(
    plugin.format
    for plugin in (
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        WebPImagePlugin.WebPImageFile,
    )
)
DEFAULT_MAX_PIXELS = 50_000_000
LARGEST_MAX_PIXELS = 89_478_485  # beyond this Pillow itself warns of a decompression bomb
_MAX_SIDE = 65_535  # JPEG's own; resizing takes another 16 bytes for every pixel of a side

_MODE_OF_CHANNELS = {1: "L", 3: "RGB"}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# what Pillow's decoders are known to raise on files that are not what they claim; memory is bounded by the pixel limit
_DECODER_ERRORS = (
    OSError,  # truncated files, unidentified images, libjpeg's and libwebp's own complaints
    SyntaxError,  # Pillow's word for a broken file
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class InputSpecError(ModeguardError, ValueError):
    """An input specification that makes no sense."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The images that a classifier takes, and how other images are made into them.

    Attributes:
        shape: (c, h, w); c is 1 (luma) or 3 (RGB).
        resize_to: length of the shorter side after resizing, before the centre of (h, w) is cut out; None to resize the
            whole image to (h, w), whatever its proportions.
        allow_resize: with False and no `resize_to`, images must have (h, w) exactly.
    """

    shape: tuple[int, int, int]
    resize_to: int | None = None
    allow_resize: bool = True

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or self.shape[0] not in _MODE_OF_CHANNELS or min(self.shape) < 1:
            raise InputSpecError(f"shape is (c, h, w) with c 1 or 3 and h and w at least 1, got {self.shape}")
        if self.resize_to is not None and self.resize_to < max(self.shape[1:]):
            raise InputSpecError(
                f"resize_to is at least the larger side of {self.shape[1:]}, so that the centre can be cut out, "
                f"got {self.resize_to}"
            )

    def to_dict(self) -> dict[str, object]:
        """The specification as JSON types."""
        return {"shape": list(self.shape), "resize_to": self.resize_to, "allow_resize": self.allow_resize}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "InputSpec":
        """The reverse of `to_dict`.

        Raises:
            InputSpecError: for unknown or missing keys and values of a wrong type.
        """
        if unknown := sorted(set(values) - {"shape", "resize_to", "allow_resize"}):
            raise InputSpecError(f"an input specification has shape, resize_to and allow_resize, got {unknown}")
        shape = values.get("shape")
        resize_to, allow_resize = values.get("resize_to"), values.get("allow_resize", True)
        if not isinstance(shape, list | tuple) or len(shape) != 3 or not all(type(s) is int for s in shape):
            raise InputSpecError(f"shape is three whole numbers (c, h, w), got {shape!r}")
        if not (resize_to is None or type(resize_to) is int) or type(allow_resize) is not bool:
            raise InputSpecError(
                f"resize_to is a whole number or null and allow_resize true or false, "
                f"got {resize_to!r} and {allow_resize!r}"
            )
        return cls((shape[0], shape[1], shape[2]), resize_to, allow_resize)


def decode_image(
    data: bytes,
    spec: InputSpec,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    formats: frozenset[str] = ALLOWED_FORMATS,
) -> Tensor:
    """Decode an image file for a classifier.

    Args:
        data: the whole file.
        spec: what the classifier takes.
        max_pixels: bound on width times height, as the header has it and after resizing; up to 89,478,485.
        formats: which of "PNG", "JPEG" and "WEBP" are taken.

    Returns:
        (c, h, w) uint8.

    Raises:
        InvalidImage: for whatever cannot be decoded in the documented way; no other error comes of any bytes.
        ValueError: if `max_pixels` or `formats` is out of range.
    """
    if not 1 <= max_pixels <= LARGEST_MAX_PIXELS or not formats <= ALLOWED_FORMATS:
        raise ValueError(
            f"max_pixels is in 1..{LARGEST_MAX_PIXELS} and formats are some of {sorted(ALLOWED_FORMATS)}, "
            f"got {max_pixels} and {sorted(formats)}"
        )
    header = read_header(data)
    _check_header(header, max_pixels, formats)
    try:
        with Image.open(BytesIO(header.pixel_file), formats=[header.format]) as file:
            if file.size != header.size:
                raise damaged(f"its header says {header.size} pixels and its content {file.size}")
            file.load()
            image = _opaque(file, header).convert(_MODE_OF_CHANNELS[spec.shape[0]])
    except InvalidImage:
        raise
    except UnidentifiedImageError as error:  # its own message holds a memory address
        raise damaged(f"what follows the {header.format} header makes no sense") from error
    except _DECODER_ERRORS as error:
        raise damaged(f"the {header.format} decoder says: {error or type(error).__name__}") from error
    if header.orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[header.orientation])
    image = _fitted(image, spec, max_pixels)
    c, h, w = spec.shape
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(h, w, c).permute(2, 0, 1).contiguous()


def _check_header(header: ImageHeader, max_pixels: int, formats: frozenset[str]) -> None:
    if header.format not in formats:
        raise InvalidImage(
            "unknown_format", f"one of {sorted(formats)} was expected, got {header.format}; convert the image"
        )
    width, height = header.size
    if width * height > max_pixels:
        raise InvalidImage(
            "too_many_pixels",
            f"at most {max_pixels} pixels are taken, got {width} x {height} = {width * height}; make the image smaller",
        )
    if max(header.size) > _MAX_SIDE:
        raise InvalidImage(
            "too_elongated",
            f"sides of at most {_MAX_SIDE} pixels are taken, got {width} x {height}; cut out the part that matters",
        )
    if header.is_animated:
        raise InvalidImage("animated", "a single picture was expected, got an animation; send its frames one by one")


def _sixteen_bit_grey(image: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def _same(image: Image.Image) -> Image.Image:
    return image


def _flattened(image: Image.Image) -> Image.Image:
    """Drop an alpha channel that is opaque everywhere; refuse any other."""
    colour = image.convert("RGBA")
    least_alpha, _ = colour.getchannel("A").getextrema()
    if least_alpha != 255:
        raise _transparent()
    return colour.convert("RGB")


_OPAQUE_OF_MODE: dict[str, Callable[[Image.Image], Image.Image]] = {
    "1": _same,
    "L": _same,
    "P": _same,
    "RGB": _same,
    "I;16": _sixteen_bit_grey,
    "LA": _flattened,
    "PA": _flattened,
    "RGBA": _flattened,
}


def _opaque(image: Image.Image, header: ImageHeader) -> Image.Image:
    """The image in a mode without transparency that Pillow converts to luma and RGB without loss of meaning."""
    if image.mode not in _OPAQUE_OF_MODE:
        raise InvalidImage(
            "unsupported_mode",
            f"grey, palette and RGB images are taken, got {image.mode}; convert the image to RGB, with its profile",
        )
    if "transparency" in image.info:
        if header.is_16_bit:  # Pillow compares 16-bit keys with 8-bit samples
            raise _transparent()
        return _flattened(image)
    return _OPAQUE_OF_MODE[image.mode](image)


def _transparent() -> InvalidImage:
    return InvalidImage(
        "transparent",
        "an opaque image was expected, got one with transparent pixels, whose look depends on what is behind them; "
        "flatten it onto the background that the classifier's users see",
    )


def _fitted(image: Image.Image, spec: InputSpec, max_pixels: int) -> Image.Image:
    """The image at (h, w), see `InputSpec`."""
    _, h, w = spec.shape
    if spec.resize_to is None:
        if image.size != (w, h) and not spec.allow_resize:
            raise InvalidImage(
                "wrong_size",
                f"an image of {w} x {h} pixels was expected, got {image.width} x {image.height}; resize it",
            )
        return image.resize((w, h), Image.Resampling.BILINEAR) if image.size != (w, h) else image
    shorter = min(image.size)
    width, height = (spec.resize_to * side // shorter for side in image.size)
    if width * height > max_pixels:
        raise InvalidImage(
            "too_elongated",
            f"an image of at most {max_pixels} pixels when its shorter side is {spec.resize_to} was expected, got "
            f"{image.width} x {image.height}; cut out the part that matters",
        )
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - w) / 2), round((height - h) / 2)
    return image.crop((left, top, left + w, top + h))
