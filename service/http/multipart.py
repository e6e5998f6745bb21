"""From a body to the image files in it: the parts of a form, or the body itself."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from modeguard.detector import ModeguardError
from modeguard.service.inference import ImageFile

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MULTIPART = "multipart/form-data"
_MAX_FILENAME_LENGTH = 255


class MultipartError(ModeguardError):
    """The body is declared to be multipart and is not, or has no part."""


class TooManyImagesError(ModeguardError):
    """The body has more images than a request may have."""


def split_body(content_type: str, body: bytes, *, max_images: int) -> list[ImageFile]:
    """The files of a body: its parts if it is multipart, else the body itself.

    Every part counts as an image, whatever its field is called.

    Args:
        content_type: the header's value.
        body: all of the body.
        max_images: bound on the number of parts.

    Raises:
        MultipartError: if the body is not well formed, or has no part.
        TooManyImagesError: at the first part above the bound.
    """
    media_type, options = parse_options_header(content_type)
    if media_type.decode("latin-1") != MULTIPART:
        return [ImageFile(None, body)]
    boundary = options.get(b"boundary")
    if not boundary:
        raise MultipartError(
            f"Content-Type {MULTIPART}; boundary=... was expected, got no boundary; let the client set it"
        )
    parts = _Parts(max_images)
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise MultipartError(f"a {MULTIPART} body was expected, but: {error}") from error
    if not parts.is_complete:
        raise MultipartError(f"a {MULTIPART} body was expected, but it ends before its last boundary; send it again")
    if not parts.files:
        raise MultipartError("a part for each image was expected, got none; with curl: -F file=@FILE")
    return parts.files


@dataclass(slots=True)
class _Parts:
    """Collects the parts that the parser finds."""

    max_images: int
    files: list[ImageFile] = field(default_factory=list)
    is_complete: bool = False
    _name: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)
    _filename: str | None = None
    _content: bytearray = field(default_factory=bytearray)

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_part_data": lambda data, start, end: self._content.extend(data[start:end]),
            "on_part_end": self._end,
            "on_end": self._complete,
        }

    def _begin(self) -> None:
        if len(self.files) == self.max_images:
            raise TooManyImagesError(
                f"at most {self.max_images} images a request were expected, got more; send them in several requests"
            )
        self._filename, self._content = None, bytearray()

    def _end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            if b"filename" in options:
                self._filename = options[b"filename"].decode("utf-8", "replace")[:_MAX_FILENAME_LENGTH]
        self._name, self._value = bytearray(), bytearray()

    def _end(self) -> None:
        self.files.append(ImageFile(self._filename, bytes(self._content)))

    def _complete(self) -> None:
        self.is_complete = True
