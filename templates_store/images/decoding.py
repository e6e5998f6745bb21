"""How the bytes of an image file become the bytes that a classifier is asked about.

One documented way, the same when a detector is built and when it is asked, because a detector that sees other pixels
than the classifier judges another picture:

* PNG, JPEG and WebP, recognised by content, never by name. The number of pixels is read from the header and checked
  before anything is decoded.
* The EXIF orientation is applied.
* Grey, black-and-white and palette images become RGB; a classifier of one channel gets the luma of ITU-R BT.601.
* 16-bit samples keep their high byte.
* Alpha that is opaque everywhere is dropped. Any other transparency is refused: what shows through depends on a
  background that the file does not name, and a picture that differs with the viewer can hide an attack.
* CMYK is refused: its colours depend on a profile. Embedded profiles of RGB files are ignored, as classifiers do.
* Animations are refused: a verdict on one frame says nothing about the others.
* The image is then made to fit, see `fitting`.
"""

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile
from torch import Tensor

from modeguard.templates_store.images.errors import InvalidImage, damaged
from modeguard.templates_store.images.fitting import fitted
from modeguard.templates_store.images.metadata import (
    PixelFile,
    jpeg_without_metadata,
    orientation_of,
    png_without_metadata,
    webp_as_it_is,
)
from modeguard.templates_store.images.spec import InputSpec


@dataclass(frozen=True, slots=True)
class _Format:
    """A file format: how it begins, which of its parts Pillow may read, and Pillow's lazy reader of it.

    The reader is called directly because `Image.open` would warn of large images and take the first of several pictures
    in a JPEG (MPO) for an animation.
    """

    begins: re.Pattern[bytes]
    pixel_file: Callable[[bytes], PixelFile]
    reader: Callable[[BytesIO], ImageFile]


_FORMATS = {
    "PNG": _Format(re.compile(rb"\x89PNG\r\n\x1a\n"), png_without_metadata, PngImageFile),
    "JPEG": _Format(re.compile(rb"\xff\xd8\xff"), jpeg_without_metadata, JpegImageFile),
    "WEBP": _Format(re.compile(rb"RIFF.{4}WEBP", re.DOTALL), webp_as_it_is, WebPImageFile),
}
ALLOWED_FORMATS = frozenset(_FORMATS)
DEFAULT_MAX_PIXELS = 50_000_000
LARGEST_MAX_PIXELS = 89_478_485  # half of what Pillow calls a decompression bomb
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
    OSError,  # truncated files, libjpeg's and libwebp's own complaints
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
)


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

    Example:
        >>> image = decode_image(Path("cat.jpg").read_bytes(), InputSpec((3, 224, 224), resize_to=256))
    """
    if not 1 <= max_pixels <= LARGEST_MAX_PIXELS or not formats <= ALLOWED_FORMATS:
        raise ValueError(
            f"max_pixels is in 1..{LARGEST_MAX_PIXELS} and formats are some of {sorted(ALLOWED_FORMATS)}, "
            f"got {max_pixels} and {sorted(formats)}"
        )
    image = _upright(data, _name_of_format(data, formats), _MODE_OF_CHANNELS[spec.shape[0]], max_pixels)
    image = fitted(image, spec, max_pixels=max_pixels)
    c, h, w = spec.shape
    # Pillow's bytes have the channels last, and torch warns of a buffer that it may not write to
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(h, w, c).permute(2, 0, 1).contiguous()


def _name_of_format(data: bytes, formats: frozenset[str]) -> str:
    if not data:
        raise InvalidImage("empty", "an image file was expected, got no bytes at all; send the file's content")
    name = next((name for name, known in _FORMATS.items() if known.begins.match(data)), None)
    if name in formats:
        return name
    got = name or f"{len(data)} bytes that begin with {data[:8]!r}"
    raise InvalidImage(
        "unknown_format", f"an image file of {' or '.join(sorted(formats))} was expected, got {got}; convert the image"
    )


def _upright(data: bytes, format_name: str, mode: str, max_pixels: int) -> Image.Image:
    """The whole picture, opaque, in a mode of Pillow's and the right way up."""
    known = _FORMATS[format_name]
    pixel_file = known.pixel_file(data)
    try:
        with known.reader(BytesIO(pixel_file.content)) as file:
            _check_header(file, pixel_file, max_pixels)
            # Pillow asks libjpeg again with every block of 64 KiB, and again from the start of what it did not use:
            # 8 s for a marker behind 32 MiB of fill bytes
            file.decodermaxblock = max(file.decodermaxblock, len(pixel_file.content))
            has_16_bit_colours = any(tile.args == "RGB;16B" for tile in file.tile)
            file.load()
            image = _opaque(file, has_16_bit_colours).convert(mode)
            orientation = orientation_of(pixel_file.exif or file.info.get("exif", b""))
    except InvalidImage:
        raise
    except Image.DecompressionBombError as error:  # of WebP only: the other readers leave the size to us
        raise InvalidImage(
            "too_many_pixels", f"at most {max_pixels} pixels are taken, but: {error} Make the image smaller"
        ) from error
    except _DECODER_ERRORS as error:
        raise damaged(f"the {format_name} decoder says: {error or type(error).__name__}") from error
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _check_header(file: ImageFile, pixel_file: PixelFile, max_pixels: int) -> None:
    width, height = file.size
    if width * height > max_pixels:
        raise InvalidImage(
            "too_many_pixels",
            f"at most {max_pixels} pixels are taken, got {width} x {height} = {width * height}; make the image smaller",
        )
    if max(file.size) > _MAX_SIDE:
        raise InvalidImage(
            "too_elongated",
            f"sides of at most {_MAX_SIDE} pixels are taken, got {width} x {height}; cut out the part that matters",
        )
    if pixel_file.is_animated or getattr(file, "is_animated", False):
        raise InvalidImage("animated", "a single picture was expected, got an animation; send its frames one by one")
    if file.mode not in _OPAQUE_OF_MODE:
        raise InvalidImage(
            "unsupported_mode",
            f"grey, palette and RGB images are taken, got {file.mode}; convert the image to RGB, with its profile",
        )


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


def _opaque(image: Image.Image, has_16_bit_colours: bool) -> Image.Image:
    """The image in a mode without transparency that Pillow converts to luma and RGB without loss of meaning."""
    if "transparency" not in image.info:
        return _OPAQUE_OF_MODE[image.mode](image)
    if has_16_bit_colours or image.mode == "I;16":  # Pillow compares 16-bit keys with 8-bit samples
        raise _transparent()
    return _flattened(image)


def _transparent() -> InvalidImage:
    return InvalidImage(
        "transparent",
        "an opaque image was expected, got one with transparent pixels, whose look depends on what is behind them; "
        "flatten it onto the background that the classifier's users see",
    )
