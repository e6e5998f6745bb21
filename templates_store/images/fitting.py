"""Images of any size at the size that a classifier takes.

`resize_to` makes the shorter side that long (bilinear, antialiased) and cuts out the centre, as is usual for ImageNet.
Without it the whole image is resized to the classifier's size, or must have that size already.
"""

from PIL import Image

from modeguard.templates_store.images.errors import InvalidImage
from modeguard.templates_store.images.spec import InputSpec


def fitted(image: Image.Image, spec: InputSpec, *, max_pixels: int) -> Image.Image:
    """The image at the (h, w) of `spec`.

    Args:
        image: of any size and of a mode that Pillow can resize.
        spec: which size, and how to get there.
        max_pixels: bound on width times height after resizing, before the centre is cut out.

    Raises:
        InvalidImage: "wrong_size" where resizing is not allowed, "too_elongated" where it would pass `max_pixels`.
    """
    if spec.resize_to is None:
        return _resized_whole(image, spec)
    return _cut_from_the_centre(image, spec, spec.resize_to, max_pixels)


def _resized_whole(image: Image.Image, spec: InputSpec) -> Image.Image:
    _, h, w = spec.shape
    if image.size == (w, h):
        return image
    if not spec.allow_resize:
        raise InvalidImage(
            "wrong_size",
            f"an image of {w} x {h} pixels was expected, got {image.width} x {image.height}; resize it",
        )
    return image.resize((w, h), Image.Resampling.BILINEAR)


def _cut_from_the_centre(image: Image.Image, spec: InputSpec, resize_to: int, max_pixels: int) -> Image.Image:
    _, h, w = spec.shape
    shorter = min(image.size)
    width, height = (resize_to * side // shorter for side in image.size)
    if width * height > max_pixels:
        raise InvalidImage(
            "too_elongated",
            f"an image of at most {max_pixels} pixels when its shorter side is {resize_to} was expected, got "
            f"{image.width} x {image.height}; cut out the part that matters",
        )
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - w) / 2), round((height - h) / 2)
    return image.crop((left, top, left + w, top + h))
