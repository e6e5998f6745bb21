"""Tell adversarial images from natural ones by input-space mode connectivity.

What judges images, in one place; everything else is imported from the rooms, `modeguard.detector` and its neighbors.
A name is imported once it is used, so that `import modeguard` itself costs nothing.

    >>> bundle = modeguard.read_bundle("artifacts/digits/bundle")
    >>> image = modeguard.decode_image(Path("3.png").read_bytes(), bundle.manifest.input)
    >>> found = modeguard.detect(bundle.detector, bundle.classifier, modeguard.to_pixels(image)[None])
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modeguard.detector import Detections, Detector, detect, to_pixels
    from modeguard.templates_store.bundles.bundle import read_bundle
    from modeguard.templates_store.images.decoding import decode_image

    __version__: str

__all__ = [
    "Detections",
    "Detector",
    "__version__",
    "decode_image",
    "detect",
    "read_bundle",
    "to_pixels",
]

_PLACES = {
    "Detections": "modeguard.detector",
    "Detector": "modeguard.detector",
    "decode_image": "modeguard.templates_store.images.decoding",
    "detect": "modeguard.detector",
    "read_bundle": "modeguard.templates_store.bundles.bundle",
    "to_pixels": "modeguard.detector",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return import_module("importlib.metadata").version("modeguard")
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
