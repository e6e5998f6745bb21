"""Whatever the bytes: an image of the right shape or an InvalidImage, and nothing else."""

import struct
import zlib

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import PngImagePlugin

from modeguard.templates_store.images import InputSpec, InvalidImage, decode_image
from tests.templates_store.images.image_files import (
    PNG_BEGIN,
    RGB_8X6,
    animation,
    exif_with,
    jpeg_segment,
    picture,
    png_chunk,
    raw_png,
    saved,
)

VALID_FILES = [
    saved(picture(size=(24, 20))),
    saved(picture("RGBA", size=(24, 20))),
    saved(picture(size=(24, 20)).quantize(7), pnginfo=PngImagePlugin.PngInfo(), transparency=3),
    raw_png(2, 2, 16, 0, [b"\x01\x02\x03\x04"] * 2, png_chunk(b"tRNS", b"\x00\x01")),
    saved(picture(size=(24, 20)), "JPEG", exif=exif_with(6)),
    saved(picture(size=(24, 20)), "JPEG", progressive=True),
    saved(picture("CMYK", size=(24, 20)), "JPEG"),
    saved(picture(size=(24, 20)), "WEBP", exif=exif_with(3)),
    saved(picture("RGBA", size=(24, 20)), "WEBP", lossless=True),
    animation("PNG"),
    animation("WEBP"),
]
SPECS = [RGB_8X6, InputSpec((1, 8, 8), resize_to=12), InputSpec((3, 20, 24), allow_resize=False)]
HEADS = [b"", *(data[:length] for data in VALID_FILES for length in (4, 16, 33))]


def answered(data: bytes, spec: InputSpec) -> None:
    """Either an image of the right shape or an InvalidImage; a warning would be an error here too."""
    try:
        assert decode_image(data, spec, max_pixels=100_000).shape == spec.shape
    except InvalidImage as error:
        says = str(error)
        assert " at 0x" not in says, "a memory address is nobody's business"


@given(st.sampled_from(HEADS), st.binary(max_size=300), st.sampled_from(SPECS))
@settings(max_examples=150, deadline=None)
def test_no_bytes_do_anything_else(head: bytes, tail: bytes, spec: InputSpec) -> None:
    answered(head + tail, spec)


@given(st.data(), st.sampled_from(VALID_FILES), st.sampled_from(SPECS))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_damage_to_valid_files_does_anything_else(data: st.DataObject, valid: bytes, spec: InputSpec) -> None:
    changed = bytearray(valid)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(valid) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(valid)) | st.just(len(valid)))
    answered(bytes(changed[:cut]), spec)


def test_png_damage_behind_the_checksums_is_found_or_harmless() -> None:
    """Chunks are changed and given a right checksum, so that the decoders behind the checksum see the damage."""
    rng = np.random.default_rng(0)
    rows = [bytes(rng.integers(0, 256, 24, dtype=np.uint8)) for _ in range(8)]
    for _ in range(300):
        header = bytearray(struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
        header[rng.integers(8, 13)] = rng.integers(0, 20)
        stream = bytearray(zlib.compress(b"".join(b"\x00" + row for row in rows)))
        stream[rng.integers(0, len(stream))] = rng.integers(0, 256)
        extra = png_chunk(
            [b"PLTE", b"tRNS", b"acTL", b"fcTL", b"fdAT"][rng.integers(5)], rng.bytes(int(rng.integers(0, 30)))
        )
        body = png_chunk(b"IHDR", bytes(header)) + extra + png_chunk(b"IDAT", bytes(stream)) + png_chunk(b"IEND", b"")
        answered(PNG_BEGIN + body, RGB_8X6)


def test_jpeg_segments_anywhere_are_found_or_harmless() -> None:
    rng = np.random.default_rng(0)
    files = [saved(picture(size=(24, 20)), "JPEG", progressive=is_progressive) for is_progressive in (False, True)]
    for _ in range(300):
        valid = files[rng.integers(2)]
        marker, at = int(rng.integers(0xC0, 0xFF)), int(rng.integers(2, len(valid)))
        answered(valid[:at] + jpeg_segment(marker, rng.bytes(int(rng.integers(0, 30)))) + valid[at:], RGB_8X6)
