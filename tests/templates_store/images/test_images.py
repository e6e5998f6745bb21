"""Image files of every kind become the documented bytes or an InvalidImage, and nothing else ever happens."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from modeguard.detector.errors import ModeguardError
from modeguard.templates_store.images.decoding import (
    ALLOWED_FORMATS,
    InputSpec,
    InputSpecError,
    InvalidImage,
    decode_image,
)
from modeguard.templates_store.images.headers import MAX_JPEG_SCANS, orientation_of, read_header

RGB_8X6 = InputSpec((3, 6, 8))
ORIENTATION = 0x0112


def picture(mode="RGB", size=(8, 6), seed=0):
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "CMYK": (4,), "LA": (2,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
    return Image.frombytes(mode, size, pixels.tobytes())


def saved(image, image_format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def as_tensor(image):
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, -1).permute(2, 0, 1)


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def raw_png(width, height, n_bits, colour, rows, extra=b""):
    """A PNG written by hand, for what Pillow does not write."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, n_bits, colour, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(b"".join(b"\x00" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + extra + body + png_chunk(b"IEND", b"")


def exif_with(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def refused(data, spec=RGB_8X6, **options):
    with pytest.raises(InvalidImage) as caught:
        decode_image(data, spec, **options)
    assert isinstance(caught.value, ModeguardError)
    return caught.value


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_lossless_files_come_back_exactly(image_format):
    image = picture()
    decoded = decode_image(saved(image, image_format, lossless=True), RGB_8X6)
    assert decoded.dtype == torch.uint8
    assert decoded.is_contiguous()
    assert torch.equal(decoded, as_tensor(image))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": exif_with(1), "comment": b"hello"}])
def test_a_jpeg_is_what_pillow_makes_of_it(options):
    data = saved(picture(size=(40, 32)), "JPEG", quality=95, **options)
    expected = Image.open(io.BytesIO(data)).convert("RGB")
    assert torch.equal(decode_image(data, InputSpec((3, 32, 40))), as_tensor(expected))


def test_grey_becomes_rgb_and_rgb_becomes_luma():
    grey = picture("L")
    assert torch.equal(decode_image(saved(grey), RGB_8X6), as_tensor(grey).expand(3, -1, -1))
    assert torch.equal(decode_image(saved(grey), InputSpec((1, 6, 8))), as_tensor(grey))
    red = decode_image(saved(Image.new("RGB", (8, 6), (255, 0, 0))), InputSpec((1, 6, 8)))
    assert red.unique().tolist() == [round(0.299 * 255)]  # ITU-R BT.601


def test_palette_and_black_and_white():
    palette = picture().quantize(16)
    assert torch.equal(decode_image(saved(palette), RGB_8X6), as_tensor(palette.convert("RGB")))
    bits = picture("L").point(lambda level: 255 * (level > 127)).convert("1")
    assert torch.equal(decode_image(saved(bits), InputSpec((1, 6, 8))), as_tensor(bits.convert("L")))


def test_sixteen_bits_keep_the_high_byte():
    levels = [0, 255, 256, 32768, 65280, 65535]
    grey = raw_png(6, 1, 16, 0, [struct.pack(">6H", *levels)])
    rgb = raw_png(2, 1, 16, 2, [struct.pack(">6H", *levels)])
    high = [level >> 8 for level in levels]
    assert decode_image(grey, InputSpec((1, 1, 6))).flatten().tolist() == high
    assert decode_image(rgb, InputSpec((3, 1, 2))).permute(1, 2, 0).flatten().tolist() == high


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_opaque_alpha_is_dropped_and_other_alpha_refused(mode, image_format):
    image = picture(mode)
    image.putalpha(255)
    assert torch.equal(
        decode_image(saved(image, image_format, lossless=True), RGB_8X6), as_tensor(image.convert("RGB"))
    )
    image.putpixel((2, 3), (*image.getpixel((2, 3))[:-1], 254))
    assert refused(saved(image, image_format, lossless=True, exact=True)).reason == "transparent"


def test_transparent_colours_are_refused_where_they_occur():
    image = Image.new("RGB", (8, 6), (10, 20, 30))
    assert refused(saved(image, transparency=(10, 20, 30))).reason == "transparent"
    assert torch.equal(decode_image(saved(image, transparency=(9, 9, 9)), RGB_8X6), as_tensor(image))
    palette = image.quantize(2)
    assert refused(saved(palette, transparency=bytes([100] * 2))).reason == "transparent"
    key = png_chunk(b"tRNS", struct.pack(">HHH", 0, 0, 5))
    sixteen = raw_png(1, 1, 16, 2, [struct.pack(">3H", 0, 0, 5)], key)
    assert refused(sixteen, InputSpec((3, 1, 1))).reason == "transparent"


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(image_format, orientation):
    data = saved(picture(size=(40, 24)), image_format, exif=exif_with(orientation), lossless=True)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    shape = (3, expected.height, expected.width)
    assert torch.equal(decode_image(data, InputSpec(shape, allow_resize=False)), as_tensor(expected))


@given(st.binary(max_size=80))
def test_any_exif_gives_an_orientation(exif):
    assert orientation_of(b"Exif\x00\x00II*\x00" + exif) in range(1, 9)
    assert orientation_of(exif) in range(1, 9)


def test_resizing_the_shorter_side_and_cutting_the_centre_is_torchvisions():
    torchvision = pytest.importorskip("torchvision.transforms")
    for size in [(60, 41), (41, 60), (33, 33), (200, 30)]:
        image = picture(size=size)
        usual = torchvision.Compose([torchvision.Resize(32), torchvision.CenterCrop(28)])
        decoded = decode_image(saved(image), InputSpec((3, 28, 28), resize_to=32))
        assert torch.equal(decoded, as_tensor(usual(image)))


def test_a_whole_image_is_resized_only_where_that_is_allowed():
    data = saved(Image.new("RGB", (50, 20), (1, 2, 3)))
    assert decode_image(data, RGB_8X6).flatten(1).unique(dim=1).flatten().tolist() == [1, 2, 3]
    error = refused(data, InputSpec((3, 6, 8), allow_resize=False))
    assert error.reason == "wrong_size"
    assert "8 x 6" in str(error)
    assert "50 x 20" in str(error)


def test_a_strip_whose_resizing_would_take_much_memory_is_refused():
    assert refused(saved(Image.new("L", (65_536, 1)))).reason == "too_elongated"
    assert decode_image(saved(Image.new("L", (65_535, 1))), RGB_8X6).shape == (3, 6, 8)


def test_a_resized_strip_may_not_grow_beyond_the_pixel_limit():
    data = saved(Image.new("L", (5000, 1)))
    error = refused(data, InputSpec((1, 8, 8), resize_to=8), max_pixels=100_000)
    assert error.reason == "too_elongated"


def huge_png():
    """The header of a 30,000 x 30,000 PNG whose pixels are not there: reading them would be another error."""
    return raw_png(30_000, 30_000, 8, 2, [])


def huge_webp():
    canvas = (29_999).to_bytes(3, "little")
    return b"RIFF\x1e\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00" + canvas + canvas


def huge_jpeg():
    data = saved(picture(), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", 30_000, 30_000) + data[at + 4 :]


@pytest.mark.parametrize("make", [huge_png, huge_webp, huge_jpeg])
def test_the_pixel_limit_is_checked_before_pillow_sees_the_file(make, monkeypatch):
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("the decoder was asked"))
    error = refused(make())
    assert error.reason == "too_many_pixels"
    assert "30000 x 30000" in str(error)


def animation(image_format):
    return saved(picture(), image_format, save_all=True, append_images=[picture(seed=1)], lossless=True)


def many_scans():
    data = saved(picture(), "JPEG", progressive=True)
    scan = data.index(b"\xff\xda")
    return data[:-2] + (data[scan : scan + 10] + b"\x00" * 8) * MAX_JPEG_SCANS + b"\xff\xd9"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: b"", "empty"),
        (lambda: b"this is a text file named .png\n", "unknown_format"),
        (lambda: saved(picture(), "GIF"), "unknown_format"),
        (lambda: saved(picture(), "BMP"), "unknown_format"),
        (lambda: saved(picture(), "TIFF"), "unknown_format"),
        (lambda: animation("PNG"), "animated"),
        (lambda: animation("WEBP"), "animated"),
        (lambda: saved(picture("CMYK"), "JPEG"), "unsupported_mode"),
        (lambda: saved(picture(size=(64, 64)), "JPEG")[:-400], "damaged"),
        (lambda: saved(picture(size=(64, 64)), "PNG")[:-400], "damaged"),
        (lambda: saved(picture(size=(64, 64)), "WEBP")[:-400], "damaged"),
        (lambda: saved(picture())[:20], "damaged"),
        (lambda: saved(picture(), "JPEG")[:30], "damaged"),
        (lambda: saved(picture(), "WEBP")[:22], "damaged"),
        (lambda: b"\x89PNG\r\n\x1a\n", "damaged"),
        (lambda: b"\xff\xd8\xff", "damaged"),
        (lambda: b"RIFF\x00\x00\x00\x00WEBP", "damaged"),
        (lambda: raw_png(0, 6, 8, 2, []), "damaged"),
        (lambda: raw_png(8, 6, 3, 7, []), "damaged"),
        (lambda: b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", bytes(13)) + b"\x00" * 12 * 70_000, "damaged"),
        (lambda: b"\xff\xd8" + b"\xff\xd0" * 70_000, "damaged"),
        (lambda: b"\xff\xd8" + b"\xff" * 1_000_000, "damaged"),
        (many_scans, "damaged"),
    ],
)
def test_bad_files_are_refused_with_a_reason(make, reason):
    error = refused(make())
    assert error.reason == reason
    assert "expected" in str(error) or "taken" in str(error)


def test_metadata_never_reaches_the_decoder():
    """Text that unpacks to 100 MB, a broken profile, EXIF and MPF: all of it is left out."""
    image = picture()
    bomb = b"Comment\x00\x00" + zlib.compress(bytes(100_000_000), 9)
    profile = b"icc\x00\x00" + zlib.compress(bytes(10_000_000), 9)
    extra = png_chunk(b"zTXt", bomb) + png_chunk(b"iCCP", profile) + png_chunk(b"eXIf", b"II*\x00\xff\xff")
    data = saved(image)
    data = data[:33] + extra + data[33:]
    assert torch.equal(decode_image(data, RGB_8X6), as_tensor(image))
    jpeg = saved(image, "JPEG", exif=exif_with(1))
    broken = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x09" + b"\x01\x1a\x00\x05\x00\x00\xff\xff\xff\xff\xff\xff"
    block = b"\xff\xe1" + struct.pack(">H", len(broken) + 2) + broken
    multi_picture = b"\xff\xe2\x00\x0cMPF\x00MM\x00*\x00\x00"
    pixel_file = read_header(jpeg[:2] + block + multi_picture + jpeg[2:]).pixel_file
    assert b"Exif" not in pixel_file
    assert b"MPF" not in pixel_file
    assert torch.equal(decode_image(jpeg[:2] + block + multi_picture + jpeg[2:], RGB_8X6), decode_image(jpeg, RGB_8X6))


def test_formats_may_be_narrowed_and_limits_are_checked():
    data = saved(picture(), "WEBP")
    assert refused(data, formats=frozenset({"PNG"})).reason == "unknown_format"
    with pytest.raises(ValueError, match="some of"):
        decode_image(data, RGB_8X6, formats=ALLOWED_FORMATS | {"GIF"})
    with pytest.raises(ValueError, match="max_pixels"):
        decode_image(data, RGB_8X6, max_pixels=0)


@pytest.mark.parametrize(
    "spec", [RGB_8X6, InputSpec((1, 8, 8), resize_to=12), InputSpec((3, 6, 8), allow_resize=False)]
)
def test_specs_survive_json(spec):
    assert InputSpec.from_dict(spec.to_dict()) == spec


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"shape": [3, 8]},
        {"shape": [2, 8, 8]},
        {"shape": [3, 0, 8]},
        {"shape": [3, 8, 8.0]},
        {"shape": [3, 8, 8], "resize_to": 7},
        {"shape": [3, 8, 8], "resize_to": "9"},
        {"shape": [3, 8, 8], "allow_resize": 1},
        {"shape": [3, 8, 8], "crop": 9},
    ],
)
def test_wrong_specs_are_refused(values):
    with pytest.raises(InputSpecError, match="got"):
        InputSpec.from_dict(values)
