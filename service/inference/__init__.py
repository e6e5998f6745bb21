"""From image files to verdicts: bundles in memory, decoding, judging, and the threads that do it.

Every API shares this room, so nothing in it knows of HTTP, forms or the settings of a server: it is given plain values,
and asks a plain function whether an answer is still wanted.
"""

from modeguard.service.inference.bundles import Bundles, BundleSource, NotReadyError, ServedBundle
from modeguard.service.inference.decoding import DecodedImage, ImageFile, ImageInRequestError
from modeguard.service.inference.engine import BusyError, Engine
from modeguard.service.inference.threads import IsWanted, NoLongerWantedError

__all__ = [
    "BundleSource",
    "Bundles",
    "BusyError",
    "DecodedImage",
    "Engine",
    "ImageFile",
    "ImageInRequestError",
    "IsWanted",
    "NoLongerWantedError",
    "NotReadyError",
    "ServedBundle",
]
