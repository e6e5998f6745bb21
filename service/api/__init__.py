"""One file an API: how its requests are read and its answers written. To add one: write one file, add one line below.

Codecs only. What several APIs over HTTP need is in `http/`, and what is done with an image in `inference/`.
"""

from modeguard.service.api import detect, model, probes
from modeguard.service.api.detect import EXAMPLE, DetectResponse, ImageVerdict, LossCurve
from modeguard.service.api.model import ModelDescription
from modeguard.service.api.schemas import ProblemDetails

ROUTERS = (detect.router, model.router, probes.router)

__all__ = [
    "EXAMPLE",
    "ROUTERS",
    "DetectResponse",
    "ImageVerdict",
    "LossCurve",
    "ModelDescription",
    "ProblemDetails",
]
