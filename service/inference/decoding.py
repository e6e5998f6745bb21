"""From image files to the classifier's pixels, and which file of a request it was that could not be decoded."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from modeguard.detector import ModeguardError
from modeguard.templates_store.images import InputSpec, InvalidImage, decode_image


class ImageInRequestError(ModeguardError):
    """One image of a request that cannot be decoded.

    Attributes:
        index: its place among the images of the request, from 0.
        filename: the name that the client gave it.
        reason: see `InvalidImage`.
    """

    def __init__(self, index: int, filename: str | None, cause: InvalidImage) -> None:
        super().__init__(f"image {index}: {cause}")
        self.index = index
        self.filename = filename
        self.reason = cause.reason


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image of a request as it was sent.

    Attributes:
        filename: what the client calls it, if it has a name; never used as a path.
        content: its bytes.
    """

    filename: str | None
    content: bytes


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """One image of a request as it is judged.

    Attributes:
        filename: see `ImageFile`.
        pixels: (c, h, w) uint8.
    """

    filename: str | None
    pixels: Tensor


def decode_images(files: Sequence[ImageFile], spec: InputSpec, *, max_pixels: int) -> list[DecodedImage]:
    """Decode the images of a request, in their order.

    Args:
        files: as they were sent.
        spec: the classifier's pixels.
        max_pixels: bound on width times height of an image.

    Raises:
        ImageInRequestError: for the first image that cannot be decoded.
    """
    images = []
    for index, file in enumerate(files):
        try:
            images.append(DecodedImage(file.filename, decode_image(file.content, spec, max_pixels=max_pixels)))
        except InvalidImage as error:
            raise ImageInRequestError(index, file.filename, error) from error
    return images
