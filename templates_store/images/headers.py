"""What the first bytes of a PNG, JPEG or WebP file say, read without decoding a pixel.

An image file comes from anybody, so this module looks at it before Pillow does. It finds out the format, the size, the
EXIF orientation and whether there is more than one frame, and it leaves out what carries no pixels (text, colour
profiles, thumbnails, maker notes): a decoder that never sees the metadata has no trouble with it.

Sources of the layouts: PNG (Third Edition) sections 5 and 11; ITU-T T.81 annex B; RFC 9649 (WebP);
Exif 2.32 section 4.6.
"""

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from modeguard.detector.errors import ModeguardError

MAX_SEGMENTS = 65_536  # of a container; a 50 million pixel PNG in the usual chunks of 8 KiB has 20,000
MAX_JPEG_SCANS = 64  # progressive encoders write about ten, and each costs a pass over all pixels

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNKS_WITH_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff])")
_JPEG_SCAN = re.compile(rb"\xff\xda\x00[\x08\x0a\x0c\x0e][\x01-\x04]")
_JPEG_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_JFIF, _JPEG_EXIF, _JPEG_ADOBE, _JPEG_COMMENT = 0xE0, 0xE1, 0xEE, 0xFE
_JPEG_METADATA = (frozenset(range(0xE0, 0xF0)) | {_JPEG_COMMENT}) - {_JPEG_JFIF, _JPEG_ADOBE}
_JPEG_START_OF_SCAN, _JPEG_END = 0xDA, 0xD9


class InvalidImage(ModeguardError, ValueError):  # noqa: N818 - the word of the design
    """Bytes that are not an image which the classifier can be asked about.

    Attributes:
        reason: a stable slug, for programs: "empty", "unknown_format", "too_many_pixels", "animated", "transparent",
            "unsupported_mode", "damaged", "wrong_size" or "too_elongated".
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What is known of an image file before it is decoded.

    Attributes:
        format: "PNG", "JPEG" or "WEBP".
        size: (width, height) as stored, before the orientation is applied.
        orientation: the EXIF tag of that name, 1 (upright) to 8.
        is_animated: there is more than one frame, or room for more.
        is_16_bit: samples have 16 bits.
        pixel_file: the same file without its metadata.
    """

    format: str
    size: tuple[int, int]
    orientation: int
    is_animated: bool
    is_16_bit: bool
    pixel_file: bytes


def read_header(data: bytes) -> ImageHeader:
    """Read the header of an image file.

    Raises:
        InvalidImage: "empty", "unknown_format" or "damaged".
    """
    if not data:
        raise InvalidImage("empty", "an image file was expected, got no bytes at all; send the file's content")
    for is_format, read in _READERS:
        if is_format(data):
            try:
                header = read(data)
            except (struct.error, IndexError) as error:
                raise damaged("the header ends too early") from error
            if min(header.size) < 1:
                raise damaged(f"the header says {header.size[0]} x {header.size[1]} pixels")
            return header
    raise InvalidImage(
        "unknown_format",
        f"a PNG, JPEG or WebP file was expected, got {len(data)} bytes that begin with {data[:8]!r}; "
        "convert the image to one of these formats",
    )


def damaged(what: str) -> InvalidImage:
    """The error for a file that starts like an image and is none."""
    return InvalidImage(
        "damaged", f"an intact image file was expected, but {what}; send the file again or save it anew"
    )


def orientation_of(exif: bytes) -> int:
    """The orientation that an EXIF block asks for; 1 where it says nothing sensible.

    Args:
        exif: a TIFF header and the directories behind it, with or without the prefix "Exif".
    """
    tiff = exif.removeprefix(b"Exif\x00\x00")
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (n_entries,) = struct.unpack_from(order + "H", tiff, directory)
        for i in range(n_entries):
            tag, kind, count, value = struct.unpack_from(order + "HHIH", tiff, directory + 2 + 12 * i)
            if (tag, kind, count) == (0x0112, 3, 1):
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


def _png(data: bytes) -> ImageHeader:
    width, height, n_bits = struct.unpack_from(">IIB", data, 16)
    kept, orientation, is_animated = [_PNG_MAGIC], 1, False
    for name, start, end in _png_chunks(data):
        if name in _PNG_CHUNKS_WITH_PIXELS:
            kept.append(data[start:end])
        elif name == b"acTL":
            is_animated = True
        elif name == b"eXIf":
            orientation = orientation_of(data[start + 8 : end - 4])
    return ImageHeader("PNG", (width, height), orientation, is_animated, n_bits == 16, b"".join(kept))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of every chunk, the end bounded by the file's."""
    if data[12:16] != b"IHDR":
        raise damaged("the file does not begin with its header chunk")
    position = len(_PNG_MAGIC)
    for _ in range(MAX_SEGMENTS):
        if position + 8 > len(data):
            return  # the decoder will say that the end is missing, where it is
        (length,) = struct.unpack_from(">I", data, position)
        name, end = data[position + 4 : position + 8], min(position + 12 + length, len(data))
        yield name, position, end
        if name == b"IEND":
            return
        position = end
    raise damaged(f"it has more than {MAX_SEGMENTS} chunks")


def _jpeg(data: bytes) -> ImageHeader:
    kept, size, orientation = [data[:2]], None, 1
    for marker, start, end in _jpeg_segments(data):
        if marker == _JPEG_EXIF and data[start + 4 : start + 10] == b"Exif\x00\x00":
            orientation = orientation_of(data[start + 4 : end])
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, start + 5)
            size = (width, height)
        if marker not in _JPEG_METADATA:
            kept.append(data[start:end])
    if size is None:
        raise damaged("there is no frame before its pixels")
    if sum(1 for _ in _JPEG_SCAN.finditer(data)) > MAX_JPEG_SCANS:
        raise damaged(f"it stores its pixels in more than {MAX_JPEG_SCANS} scans")
    return ImageHeader("JPEG", size, orientation, False, False, b"".join(kept))


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of every segment; the first scan and all behind it are one segment."""
    position = 2
    for _ in range(MAX_SEGMENTS):
        match = _JPEG_MARKER.search(data, position)
        if match is None or match[1][0] == _JPEG_END:
            raise damaged("it ends before its pixels begin")
        marker, start = match[1][0], match.start()
        if marker == _JPEG_START_OF_SCAN:
            yield marker, start, len(data)
            return
        position = start + 2
        if marker not in _JPEG_WITHOUT_LENGTH:
            (length,) = struct.unpack_from(">H", data, position)
            position += max(length, 2)
            yield marker, start, position
    raise damaged(f"it has more than {MAX_SEGMENTS} segments")


def _webp(data: bytes) -> ImageHeader:
    first, orientation, is_animated = data[12:16], 1, False
    size = _WEBP_SIZES[first](data) if first in _WEBP_SIZES else None
    if size is None:
        raise damaged("its first chunk is no WebP header")
    position = 12
    for _ in range(MAX_SEGMENTS):
        if position + 8 > len(data):
            break
        name, (length,) = data[position : position + 4], struct.unpack_from("<I", data, position + 4)
        if name in {b"ANIM", b"ANMF"}:
            is_animated = True
        elif name == b"EXIF":
            orientation = orientation_of(data[position + 8 : position + 8 + length])
        position += 8 + length + length % 2
    else:
        raise damaged(f"it has more than {MAX_SEGMENTS} chunks")
    return ImageHeader("WEBP", size, orientation, is_animated, False, data)


def _webp_lossy_size(data: bytes) -> tuple[int, int] | None:
    width, height = struct.unpack_from("<HH", data, 26)
    return (width & 0x3FFF, height & 0x3FFF) if data[23:26] == b"\x9d\x01\x2a" else None


def _webp_lossless_size(data: bytes) -> tuple[int, int] | None:
    (bits,) = struct.unpack_from("<I", data, 21)
    return ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1) if data[20] == 0x2F else None


def _webp_canvas_size(data: bytes) -> tuple[int, int] | None:
    canvas = struct.unpack_from("<6B", data, 24)
    return (
        1 + canvas[0] + (canvas[1] << 8) + (canvas[2] << 16),
        1 + canvas[3] + (canvas[4] << 8) + (canvas[5] << 16),
    )


_WEBP_SIZES: dict[bytes, Callable[[bytes], tuple[int, int] | None]] = {
    b"VP8 ": _webp_lossy_size,
    b"VP8L": _webp_lossless_size,
    b"VP8X": _webp_canvas_size,
}
_READERS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], ImageHeader]], ...] = (
    (lambda data: data.startswith(_PNG_MAGIC), _png),
    (lambda data: data.startswith(b"\xff\xd8\xff"), _jpeg),
    (lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", _webp),
)
