"""PNG and JPEG files without the parts that hold no pixels, because Pillow reads those without a bound.

Pillow opens a file by reading all that stands before the pixels, in Python. Measured with Pillow 13.0 on files of
32 MiB, the service's limit, each with a picture of 24 x 20 pixels:

* PNG: compressed profiles (iCCP) or texts (zTXt) of 1 MiB in 1 kB each are all unpacked, 71 s. Empty private chunks
  take 7 s and 321 MB, and 63 compressed texts (iTXt) in a file of 70 kB take 257 MB.
* JPEG: Pillow joins the EXIF segments again with every further one, 0.3 s for 1 MiB and 2.5 s for 4 MiB. Empty comments
  take 8 s and 578 MB. Frame headers that name 21,800 components each take 976 MB.
* JPEG: each scan is a pass over all pixels: 3.2 ms at 49 million pixels, for 18 bytes of file.

WebP needs none of this: libwebp finds its way through 32 MiB of chunks in 0.2 s and 190 MB, Pillow does not look into
the metadata, and the canvas takes no memory until it is drawn on. Only animations of one frame have to be recognised
here: Pillow takes them for still images and shows black where the frame does not reach, others what is behind.

The EXIF orientation is read here too. Pillow's own reader unpacks every tag, warns for the broken ones (which cannot be
silenced for one thread alone) and takes the orientation from XMP and other texts as well.

Sources of the layouts: PNG (Third Edition) sections 5 and 11; ITU-T T.81 annex B; RFC 9649 (WebP) section 2.7;
Exif 2.32 section 4.6.
"""

import re
import struct
from dataclasses import dataclass

from modeguard.templates_store.images.errors import damaged

MAX_SEGMENTS = 65_536  # of a file; a 50 million pixel PNG in the usual chunks of 8 KiB has 20,000
MAX_JPEG_SCANS = 64  # progressive encoders write about ten

_PNG_CHUNKS_WITH_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_JPEG_SEGMENT = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")  # the markers left out have no length
_JPEG_FRAMES = frozenset({*range(0xC0, 0xCF + 1), 0xDE}) - {0xC4, 0xC8, 0xCC}  # all that Pillow reads as one
_JPEG_JFIF, _JPEG_EXIF, _JPEG_ADOBE, _JPEG_COMMENT = 0xE0, 0xE1, 0xEE, 0xFE
_JPEG_METADATA = frozenset({*range(0xE0, 0xEF + 1), _JPEG_COMMENT}) - {_JPEG_JFIF, _JPEG_ADOBE}
_JPEG_START_OF_SCAN = 0xDA
_JPEG_SCAN = re.compile(rb"\xff\xda\x00[\x08\x0a\x0c\x0e][\x01-\x04]")


@dataclass(frozen=True, slots=True)
class PixelFile:
    """An image file that Pillow may read.

    Attributes:
        content: the file without its metadata.
        exif: its EXIF block; empty if there is none, or if it is in `content` still.
        is_animated: the file says that it is an animation.
    """

    content: bytes
    exif: bytes = b""
    is_animated: bool = False


def png_without_metadata(data: bytes) -> PixelFile:
    """The chunks of a PNG that hold pixels.

    Raises:
        InvalidImage: "damaged" if there are more than `MAX_SEGMENTS` chunks.
    """
    kept, exif, is_animated, position = [data[:8]], b"", False, 8
    for _ in range(MAX_SEGMENTS):
        name, end = data[position + 4 : position + 8], position + 12 + _number(data[position : position + 4])
        if name in _PNG_CHUNKS_WITH_PIXELS:
            kept.append(data[position:end])
        elif name == b"acTL":
            is_animated = True
        elif name == b"eXIf":
            exif = data[position + 8 : end - 4]
        if name == b"IEND" or end >= len(data):  # the decoder will say if the end is missing
            return PixelFile(b"".join(kept), exif, is_animated)
        position = end
    raise damaged(f"it has more than {MAX_SEGMENTS} chunks")


def jpeg_without_metadata(data: bytes) -> PixelFile:
    """The segments of a JPEG that hold pixels or say how they are stored.

    Raises:
        InvalidImage: "damaged" if there are no pixels, several frames, more than `MAX_SEGMENTS` segments before the
            pixels or more than `MAX_JPEG_SCANS` scans.
    """
    kept, exif, n_frames, position = [data[:2]], b"", 0, 2
    for _ in range(MAX_SEGMENTS):
        found = _JPEG_SEGMENT.search(data, position)
        if found is None:
            raise damaged("it ends before its pixels begin")
        marker, start = found[1][0], found.start()
        if marker == _JPEG_START_OF_SCAN:
            _check_jpeg(n_frames, data, start)
            return PixelFile(b"".join([*kept, data[start:]]), exif)
        position = start + 2 + max(_number(data[start + 2 : start + 4]), 2)
        n_frames += marker in _JPEG_FRAMES
        if marker not in _JPEG_METADATA:
            kept.append(data[start:position])
        elif marker == _JPEG_EXIF and not exif and data.startswith(b"Exif\x00\x00", start + 4):
            exif = data[start + 4 : position]
    raise damaged(f"it has more than {MAX_SEGMENTS} segments")


def _check_jpeg(n_frames: int, data: bytes, first_scan: int) -> None:
    if n_frames != 1:
        raise damaged(f"it has {n_frames} frames instead of one before its pixels")
    if sum(1 for _ in _JPEG_SCAN.finditer(data, first_scan)) > MAX_JPEG_SCANS:
        raise damaged(f"it stores its pixels in more than {MAX_JPEG_SCANS} scans")


def webp_as_it_is(data: bytes) -> PixelFile:
    """The whole WebP, with its metadata."""
    flags = data[20:21] if data[12:16] == b"VP8X" else b""
    return PixelFile(data, is_animated=bool(_number(flags) & 0x02))


def _number(big_endian: bytes) -> int:
    return int.from_bytes(big_endian, "big")


def orientation_of(exif: bytes) -> int:
    """The orientation that an EXIF block asks for, 1 (upright) to 8; 1 where it says nothing sensible.

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
    except struct.error:  # the block ends too early
        return 1
    return 1
