"""Image files of every kind become the documented bytes or an InvalidImage."""

import io
import struct
from collections.abc import Callable

import pytest
import torch
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile
from PIL.WebPImagePlugin import WebPImageFile

from modeguard.detector import ModeguardError
from modeguard.templates_store.images import ALLOWED_FORMATS, InputSpec, InvalidImage, decode_image
from tests.templates_store.images.image_files import (
    PNG_BEGIN,
    RGB_8X6,
    animation,
    as_tensor,
    exif_with,
    jpeg_segment,
    picture,
    png_chunk,
    raw_png,
    saved,
    webp_of,
    with_canvas,
    with_segments,
)

ANY_SIZE = InputSpec((3, 24, 40), allow_resize=False)


def refused(data: bytes, spec: InputSpec = RGB_8X6, *, formats: frozenset[str] = ALLOWED_FORMATS) -> InvalidImage:
    with pytest.raises(InvalidImage) as caught:
        decode_image(data, spec, formats=formats)
    assert isinstance(caught.value, ModeguardError)
    return caught.value


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_lossless_files_come_back_exactly(image_format: str) -> None:
    image = picture()
    decoded = decode_image(saved(image, image_format, lossless=True), RGB_8X6)
    assert decoded.dtype == torch.uint8
    assert decoded.is_contiguous()
    assert torch.equal(decoded, as_tensor(image))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": exif_with(1), "comment": b"hello"}])
def test_a_jpeg_is_what_pillow_makes_of_it(options: dict[str, object]) -> None:
    data = saved(picture(size=(40, 32)), "JPEG", quality=95, **options)
    expected = Image.open(io.BytesIO(data)).convert("RGB")
    assert torch.equal(decode_image(data, InputSpec((3, 32, 40))), as_tensor(expected))


def test_a_jpeg_of_several_blocks_of_pillows_is_what_pillow_makes_of_it() -> None:
    data = saved(picture(size=(500, 400)), "JPEG", quality=95, progressive=True)
    assert len(data) > 2 * 65_536
    expected = Image.open(io.BytesIO(data)).convert("RGB")
    assert torch.equal(decode_image(data, InputSpec((3, 400, 500))), as_tensor(expected))


def test_grey_becomes_rgb_and_rgb_becomes_luma() -> None:
    grey = picture("L")
    assert torch.equal(decode_image(saved(grey), RGB_8X6), as_tensor(grey).expand(3, -1, -1))
    assert torch.equal(decode_image(saved(grey), InputSpec((1, 6, 8))), as_tensor(grey))
    red = decode_image(saved(Image.new("RGB", (8, 6), (255, 0, 0))), InputSpec((1, 6, 8)))
    assert red.unique().tolist() == [round(0.299 * 255)]  # ITU-R BT.601


def test_palette_and_black_and_white() -> None:
    palette = picture().quantize(16)
    assert torch.equal(decode_image(saved(palette), RGB_8X6), as_tensor(palette.convert("RGB")))
    bits = picture("L").point(lambda level: 255 * (level > 127)).convert("1")
    assert torch.equal(decode_image(saved(bits), InputSpec((1, 6, 8))), as_tensor(bits.convert("L")))


def test_sixteen_bits_keep_the_high_byte() -> None:
    levels = [0, 255, 256, 32768, 65280, 65535]
    grey = raw_png(6, 1, 16, 0, [struct.pack(">6H", *levels)])
    rgb = raw_png(2, 1, 16, 2, [struct.pack(">6H", *levels)])
    high = [level >> 8 for level in levels]
    assert decode_image(grey, InputSpec((1, 1, 6))).flatten().tolist() == high
    assert decode_image(rgb, InputSpec((3, 1, 2))).permute(1, 2, 0).flatten().tolist() == high


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_opaque_alpha_is_dropped_and_other_alpha_refused(mode: str, image_format: str) -> None:
    image = picture(mode)
    image.putalpha(255)
    opaque = saved(image, image_format, lossless=True)
    assert torch.equal(decode_image(opaque, RGB_8X6), as_tensor(image.convert("RGB")))
    alpha = image.getchannel("A")
    alpha.putpixel((2, 3), 254)
    image.putalpha(alpha)
    assert refused(saved(image, image_format, lossless=True, exact=True)).reason == "transparent"


def test_transparent_colours_are_refused_where_they_occur() -> None:
    image = Image.new("RGB", (8, 6), (10, 20, 30))
    assert refused(saved(image, transparency=(10, 20, 30))).reason == "transparent"
    assert torch.equal(decode_image(saved(image, transparency=(9, 9, 9)), RGB_8X6), as_tensor(image))
    behind_the_pixels = saved(image)[:-12] + png_chunk(b"tRNS", struct.pack(">3H", 10, 20, 30)) + saved(image)[-12:]
    assert refused(behind_the_pixels).reason == "transparent"
    palette = image.quantize(2)
    assert refused(saved(palette, transparency=bytes([100] * 2))).reason == "transparent"


@pytest.mark.parametrize(("colour", "n_samples"), [(0, 1), (2, 3)])
def test_a_transparent_colour_of_16_bits_is_refused_though_pillow_does_not_find_it(colour: int, n_samples: int) -> None:
    key = struct.pack(f">{n_samples}H", *[0x0105] * n_samples)
    data = raw_png(1, 1, 16, colour, [key], png_chunk(b"tRNS", key))
    assert refused(data, InputSpec((3, 1, 1))).reason == "transparent"


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(image_format: str, orientation: int) -> None:
    data = saved(picture(size=(40, 24)), image_format, exif=exif_with(orientation), lossless=True)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    shape = (3, expected.height, expected.width)
    assert torch.equal(decode_image(data, InputSpec(shape, allow_resize=False)), as_tensor(expected))


def huge_png() -> bytes:
    return raw_png(30_000, 30_000, 8, 2, [])


def huge_jpeg() -> bytes:
    data = saved(picture(), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", 30_000, 30_000) + data[at + 4 :]


@pytest.mark.parametrize(
    ("make", "n_pixels"),
    [
        (huge_png, 900_000_000),
        (huge_jpeg, 900_000_000),
        (lambda: with_canvas(animation("WEBP"), (7100, 7100)), 50_410_000),
        (lambda: with_canvas(animation("WEBP"), (16_000, 16_000)), 256_000_000),  # Pillow's own limit comes first
    ],
)
def test_the_pixel_limit_is_checked_before_anything_is_decoded(
    make: Callable[[], bytes], n_pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make()
    for reader in (ImageFile, WebPImageFile):
        monkeypatch.setattr(reader, "load", lambda _: pytest.fail("the decoder was asked"))
    error = refused(data)
    assert error.reason == "too_many_pixels"
    assert str(n_pixels) in str(error)


def test_cmyk_is_refused_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(picture("CMYK"), "JPEG")
    monkeypatch.setattr(ImageFile, "load", lambda _: pytest.fail("the decoder was asked"))
    assert refused(data).reason == "unsupported_mode"


def test_the_first_picture_of_a_jpeg_with_several_is_decoded() -> None:
    """Telephones append previews and depth maps in this way (MPO); the file is a photograph all the same."""
    image = picture(size=(40, 24))
    several = saved(image, "MPO", save_all=True, append_images=[picture(seed=1)])
    assert torch.equal(decode_image(several, ANY_SIZE), decode_image(saved(image, "JPEG"), ANY_SIZE))


def with_one_frame_in_a_corner() -> bytes:
    """A WebP of 8 x 6 pixels whose canvas is 40 x 24, all of it opaque if its header is to be believed."""
    frames = with_canvas(animation("WEBP"), (40, 24))
    second = frames.rindex(b"ANMF")
    header = b"VP8X\x0a\x00\x00\x00\x02\x00\x00\x00"
    return webp_of(header + frames[24:second])


def test_an_animation_of_one_frame_is_an_animation() -> None:
    """Where the frame does not reach, Pillow shows black and others what is behind."""
    data = with_one_frame_in_a_corner()
    assert Image.open(io.BytesIO(data)).convert("RGB").getpixel((39, 23)) == (0, 0, 0)
    assert refused(data).reason == "animated"


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
        (lambda: PNG_BEGIN, "damaged"),
        (lambda: b"\xff\xd8\xff", "damaged"),
        (lambda: b"RIFF\x00\x00\x00\x00WEBP", "damaged"),
        (lambda: raw_png(0, 6, 8, 2, []), "damaged"),
        (lambda: raw_png(8, 6, 3, 7, []), "damaged"),
        (lambda: PNG_BEGIN + png_chunk(b"IHDR", bytes(13)) + b"\x00" * 12 * 70_000, "damaged"),
        (lambda: b"\xff\xd8" + b"\xff\xd0" * 70_000, "damaged"),
        (lambda: b"\xff\xd8" + b"\xff" * 1_000_000, "damaged"),
        (lambda: with_segments(saved(picture(), "JPEG"), jpeg_segment(0xD9, b"")), "damaged"),
    ],
)
def test_bad_files_are_refused_with_a_reason(make: Callable[[], bytes], reason: str) -> None:
    error = refused(make())
    assert error.reason == reason
    assert "expected" in str(error) or "taken" in str(error)


def test_formats_may_be_narrowed_and_limits_are_checked() -> None:
    data = saved(picture(), "WEBP")
    error = refused(data, formats=frozenset({"PNG"}))
    assert error.reason == "unknown_format"
    assert "file of PNG was expected, got WEBP" in str(error)
    with pytest.raises(ValueError, match="some of"):
        decode_image(data, RGB_8X6, formats=ALLOWED_FORMATS | {"GIF"})
    with pytest.raises(ValueError, match="max_pixels"):
        decode_image(data, RGB_8X6, max_pixels=0)
