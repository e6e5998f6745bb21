"""Tell adversarial images from natural ones by input-space mode connectivity.

What judges images, in one place; everything else is imported from the rooms, `modeguard.detector` and its neighbors.
A name is imported once it is used, so that `import modeguard` itself costs nothing.

    >>> from pathlib import Path
    >>> from modeguard import decode_image, detect, read_bundle, to_pixels
    >>> bundle = read_bundle(Path("artifacts/digits/bundle"))
    >>> image = decode_image(Path("3.png").read_bytes(), bundle.manifest.input)
    >>> verdict, = detect(bundle.detector, bundle.classifier, to_pixels(image)[None]).verdicts()
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modeguard.detector import Detections, Detector, Verdict, detect, to_pixels
    from modeguard.templates_store.bundles import read_bundle
    from modeguard.templates_store.images import decode_image

    __version__: str

__all__ = [
    "Detections",
    "Detector",
    "Verdict",
    "__version__",
    "decode_image",
    "detect",
    "read_bundle",
    "to_pixels",
]

_HOMES = {
    "Detections": "modeguard.detector",
    "Detector": "modeguard.detector",
    "Verdict": "modeguard.detector",
    "decode_image": "modeguard.templates_store.images",
    "detect": "modeguard.detector",
    "read_bundle": "modeguard.templates_store.bundles",
    "to_pixels": "modeguard.detector",
}


if not TYPE_CHECKING:  # a type checker is to know no other names than the imports above

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version  # noqa: PLC0415 - costs more than all the rest of this page

            return version("modeguard")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
