"""What Pillow reads without a bound never reaches it; every test here fails if the check that it names is taken away.

Work and allocations are counted, seconds are not: those are in the docstring of `metadata`.
"""

import io
import struct
import subprocess
import sys
import textwrap
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, JpegImagePlugin, PngImagePlugin

from modeguard.templates_store.images import InputSpec, InvalidImage, decode_image
from modeguard.templates_store.images.metadata import MAX_JPEG_SCANS, MAX_SEGMENTS, orientation_of
from tests.templates_store.images.image_files import (
    RGB_8X6,
    animation,
    exif_with,
    jpeg_segment,
    picture,
    png_chunk,
    saved,
    with_canvas,
    with_chunks,
    with_segments,
)

JPEG = saved(picture(), "JPEG")
PNG = saved(picture())
MEGABYTE = 2**20


def damage(data: bytes) -> str:
    with pytest.raises(InvalidImage) as caught:
        decode_image(data, RGB_8X6)
    assert caught.value.reason == "damaged"
    return str(caught.value)


def most_allocated(work: Callable[[], object]) -> int:
    """The most bytes that Python objects took at a time."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def decoded_like(data: bytes, plain: bytes) -> None:
    assert torch.equal(decode_image(data, RGB_8X6), decode_image(plain, RGB_8X6))


# --- PNG


def test_texts_and_profiles_are_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    megabyte = zlib.compress(bytes(MEGABYTE - 1), 9)
    bombs = (
        png_chunk(b"iCCP", b"name\x00\x00" + megabyte)
        + png_chunk(b"zTXt", b"\x00\x00" + megabyte)  # Pillow counts texts only if they have a name
        + png_chunk(b"iTXt", b"name\x00\x01\x00\x00\x00" + megabyte)
        + png_chunk(b"zTXt", b"name\x00\x00" + zlib.compress(bytes(100 * MEGABYTE), 9))
    )
    monkeypatch.setattr(zlib, "decompressobj", lambda *_: pytest.fail("Pillow unpacks the metadata"))
    decoded_like(with_chunks(PNG, bombs), PNG)


def test_private_chunks_take_no_memory() -> None:
    """Pillow keeps each, which takes ten times the file."""
    data = with_chunks(PNG, png_chunk(b"prVt", b"") * 30_000)
    assert most_allocated(lambda: decode_image(data, RGB_8X6)) < len(data) + MEGABYTE


def test_broken_metadata_does_not_break_the_picture() -> None:
    wrong_checksum = png_chunk(b"tEXt", b"a\x00b")[:-1] + b"?"
    too_short = png_chunk(b"eXIf", b"II*\x00\xff\xff") + png_chunk(b"gAMA", b"")
    decoded_like(with_chunks(PNG, wrong_checksum + too_short), PNG)


def test_the_number_of_chunks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    flood = png_chunk(b"IDAT", b"")
    most = with_chunks(PNG, flood * (MAX_SEGMENTS // 2 - 2))
    decoded_like(most, PNG)
    monkeypatch.setattr(PngImagePlugin.ChunkStream, "read", lambda _: pytest.fail("Pillow reads the chunks"))
    assert "65536 chunks" in damage(with_chunks(PNG, flood * (MAX_SEGMENTS // 2)))


# --- JPEG


def test_metadata_segments_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """EXIF segments that Pillow would join again with every further one, pictures behind the picture, comments."""
    data = with_segments(
        JPEG,
        jpeg_segment(0xE1, b"Exif\x00\x00?") * 1000
        + jpeg_segment(0xE2, b"MPF\x00MM\x00*\x00\x00")
        + jpeg_segment(0xED, b"Photoshop 3.0\x008BIM")
        + jpeg_segment(0xFE, b"comment"),
    )
    for marker in (0xFFE1, 0xFFE2, 0xFFED, 0xFFFE):
        monkeypatch.setitem(JpegImagePlugin.MARKER, marker, ("", "", lambda *_: pytest.fail("Pillow reads metadata")))
    decoded_like(data, JPEG)


@pytest.mark.parametrize("marker", [0xC0, 0xC2, 0xDE])
def test_there_is_one_frame_header(marker: int) -> None:
    """Pillow keeps 85 bytes for every three of each; libjpeg would refuse the second afterwards."""
    frame = jpeg_segment(marker, b"\x08\x00\x06\x00\x08\x03" + b"\x01\x11\x00" * 21_000)
    data = with_segments(JPEG, frame * 20)
    assert most_allocated(lambda: damage(data)) < 2 * len(data)
    assert "21 frames" in damage(data)
    assert "0 frames" in damage(JPEG[: JPEG.index(b"\xff\xc0")] + JPEG[JPEG.index(b"\xff\xda") :])


def test_segments_too_short_for_their_own_length_are_passed_over_as_pillow_does() -> None:
    decoded_like(with_segments(JPEG, b"\xff\xe0\x00\x00\xff\xfe\x00\x01"), JPEG)


def test_the_number_of_segments_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = with_segments(JPEG, jpeg_segment(0xE0, b"") * MAX_SEGMENTS)
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "_open", lambda _: pytest.fail("Pillow reads the segments"))
    assert "65536 segments" in damage(data)


def with_scans(n_scans: int) -> bytes:
    """A progressive JPEG that repeats the first of its scans, without data."""
    data = saved(picture(), "JPEG", progressive=True)
    first = data.index(b"\xff\xda")
    again = data[first : first + 10] + bytes(8)
    return data[:-2] + again * (n_scans - data.count(b"\xff\xda")) + b"\xff\xd9"


def test_the_number_of_scans_is_bounded() -> None:
    assert decode_image(with_scans(MAX_JPEG_SCANS), RGB_8X6).shape == RGB_8X6.shape
    assert "64 scans" in damage(with_scans(MAX_JPEG_SCANS + 1))


def test_scans_of_thumbnails_do_not_count() -> None:
    thumbnail = jpeg_segment(0xE1, b"Exif\x00\x00" + with_scans(MAX_JPEG_SCANS))
    decoded_like(with_segments(JPEG, thumbnail), JPEG)


def test_libjpeg_is_not_asked_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time it would begin at the first of the fill bytes, which takes the square of their number."""
    n_reads, read = [0], JpegImagePlugin.JpegImageFile.load_read

    def counted(file: JpegImagePlugin.JpegImageFile, n_bytes: int) -> bytes:
        n_reads[0] += 1
        return read(file, n_bytes)

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load_read", counted)
    data = saved(picture(), "JPEG", progressive=True)
    second = data.rindex(b"\xff\xda")
    decoded_like(data[:second] + b"\xff" * MEGABYTE + data[second:], data)
    assert n_reads == [2]  # one for each of the two files


# --- WebP


def test_the_canvas_of_a_webp_takes_no_memory_until_it_is_drawn_on() -> None:
    """Why its size may be checked after Pillow has opened the file: 89 million pixels would be 700 MB."""
    data = with_canvas(animation("WEBP"), (9_401, 9_401))
    program = """
        import sys
        from io import BytesIO
        from pathlib import Path
        from PIL.WebPImagePlugin import WebPImageFile

        def most_memory_kb():
            return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

        data = sys.stdin.buffer.read()
        before = most_memory_kb()
        assert WebPImageFile(BytesIO(data)).size == (9_401, 9_401)
        print(most_memory_kb() - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    grown_kb = subprocess.run(command, input=data, capture_output=True, check=True).stdout
    assert int(grown_kb) < 20_000


# --- EXIF


def exif_block(*entries: bytes) -> bytes:
    return b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)


def exif_entry(tag: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack("<HHII", tag, kind, count, value)


ON_ITS_SIDE = exif_entry(0x0112, 3, 1, 6)
BEYOND_THE_END = exif_entry(0x010F, 2, 20, 2**31)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
def test_a_broken_tag_does_not_hide_the_orientation(image_format: str) -> None:
    """Pillow warns and reads no further."""
    exif = exif_block(BEYOND_THE_END, ON_ITS_SIDE)
    with pytest.warns(UserWarning, match="Truncated"):
        Image.Exif().load(exif)
    image = picture(size=(40, 24))
    data = saved(image, image_format, lossless=True, exif=b"Exif\x00\x00" + exif)
    upright = saved(image, image_format, lossless=True)
    turned = decode_image(upright, InputSpec((3, 24, 40))).rot90(-1, (1, 2))
    assert torch.equal(decode_image(data, InputSpec((3, 40, 24), allow_resize=False)), turned)


def test_only_exif_turns_a_picture() -> None:
    """Pillow takes the orientation from XMP and other texts as well."""
    texts = PngImagePlugin.PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    texts.add_text("Raw profile type exif", "\nexif\n1\n" + exif_with(6).tobytes().hex())
    data = saved(picture(), pnginfo=texts)
    assert Image.open(io.BytesIO(data)).getexif()[0x0112] == 6
    decoded_like(data, PNG)


def test_the_first_exif_block_counts() -> None:
    first, second = (jpeg_segment(0xE1, exif_with(orientation).tobytes()) for orientation in (3, 1))
    decoded_like(with_segments(JPEG, first + second), with_segments(JPEG, first))


def test_only_one_short_number_is_an_orientation() -> None:
    assert orientation_of(exif_block(ON_ITS_SIDE)) == 6
    for tag, kind, count, value in [(0x0112, 3, 1, 9), (0x0112, 3, 2, 6), (0x0112, 4, 1, 6), (0x0113, 3, 1, 6)]:
        assert orientation_of(exif_block(exif_entry(tag, kind, count, value))) == 1


@given(st.binary(max_size=80))
def test_any_exif_gives_an_orientation(exif: bytes) -> None:
    assert orientation_of(b"Exif\x00\x00II*\x00" + exif) in range(1, 9)
    assert orientation_of(exif) in range(1, 9)
