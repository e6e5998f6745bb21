"""Image files of every kind, made for the tests."""

import io
import struct
import zlib

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from modeguard.templates_store.images import InputSpec

RGB_8X6 = InputSpec((3, 6, 8))
PNG_BEGIN = b"\x89PNG\r\n\x1a\n"
_ORIENTATION = 0x0112


def picture(mode: str = "RGB", size: tuple[int, int] = (8, 6), seed: int = 0) -> Image.Image:
    """Random pixels."""
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "CMYK": (4,), "LA": (2,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
    return Image.frombytes(mode, size, pixels.tobytes())


def saved(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def as_tensor(image: Image.Image) -> Tensor:
    """(c, h, w) uint8."""
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, -1).permute(2, 0, 1)


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def raw_png(width: int, height: int, n_bits: int, colour: int, rows: list[bytes], extra: bytes = b"") -> bytes:
    """A PNG written by hand, for what Pillow does not write."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, n_bits, colour, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(b"".join(b"\x00" + row for row in rows)))
    return PNG_BEGIN + header + extra + body + png_chunk(b"IEND", b"")


def with_chunks(png: bytes, chunks: bytes) -> bytes:
    """A PNG with further chunks behind its header and again before its end."""
    return png[:33] + chunks + png[33:-12] + chunks + png[-12:]


def jpeg_segment(marker: int, payload: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(payload) + 2) + payload


def with_segments(jpeg: bytes, segments: bytes) -> bytes:
    """A JPEG with further segments behind its start."""
    return jpeg[:2] + segments + jpeg[2:]


def exif_with(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    return exif


def animation(image_format: str) -> bytes:
    return saved(picture(), image_format, save_all=True, append_images=[picture(seed=1)], lossless=True)


def webp_of(chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def with_canvas(webp: bytes, size: tuple[int, int]) -> bytes:
    """An animated WebP whose header names another size."""
    width, height = (side - 1 for side in size)
    return webp[:24] + width.to_bytes(3, "little") + height.to_bytes(3, "little") + webp[30:]
