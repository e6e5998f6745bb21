"""Image files become the pixels that a classifier is asked about, in one documented way.

What lives here: the bytes of a PNG, JPEG or WebP file in, a tensor of the classifier's shape out, and whatever it takes
to do that safely with files from strangers. What must not: where files come from (data sets, requests), what is asked
about the pixels, and scaling them to [0, 1], which is the detector's.
"""

from modeguard.templates_store.images.decoding import (
    ALLOWED_FORMATS,
    DEFAULT_MAX_PIXELS,
    LARGEST_MAX_PIXELS,
    decode_image,
)
from modeguard.templates_store.images.errors import InvalidImage
from modeguard.templates_store.images.spec import InputSpec, InputSpecError

__all__ = [
    "ALLOWED_FORMATS",
    "DEFAULT_MAX_PIXELS",
    "LARGEST_MAX_PIXELS",
    "InputSpec",
    "InputSpecError",
    "InvalidImage",
    "decode_image",
]
