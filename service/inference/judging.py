"""The computing part of a request: decoded images in, verdicts out."""

from collections.abc import Sequence

import torch
from torch import Tensor

from modeguard.detector import Verdict, detect, to_pixels
from modeguard.service.inference.bundles import ServedBundle


@torch.inference_mode()
def judge(served: ServedBundle, images: Sequence[Tensor], *, with_curves: bool) -> list[Verdict]:
    """Ask the detector about the images of one request.

    Args:
        served: classifier and detector.
        images: at least one, each (c, h, w) uint8 of the bundle's input shape, as `decode_image` gives them.
        with_curves: whether the verdicts carry their loss curves.
    """
    detector = served.bundle.detector
    pixels = to_pixels(torch.stack(tuple(images)).to(detector.calibration_scores.device))
    return detect(detector, served.classifier, pixels).verdicts(with_curves=with_curves)
