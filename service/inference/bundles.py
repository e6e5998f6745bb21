"""The computing part of a request: a bundle, a device, and verdicts in plain Python values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modeguard.detector import Detections, detect, to_pixels
from modeguard.service.settings import Settings
from modeguard.templates_store.bundles.bundle import Bundle, read_bundle
from modeguard.templates_store.classifiers import resolve_device

# (n_templates, n_points); None where the classifier's answer is not finite, as JSON has no word for that
Curves = list[list[float | None]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of one image.

    Attributes:
        predicted: the classifier's class.
        score: [0, 1], higher is more adversarial; None where nothing can be said.
        p_value: (0, 1], split-conformal; None with the score.
        is_adversarial: the verdict at the target FPR; None with the score.
        reason: why nothing can be said, else None.
        losses, margins: along the path to each template; None unless asked for, or where there is no template.
    """

    predicted: int
    score: float | None
    p_value: float | None
    is_adversarial: bool | None
    reason: str | None
    losses: Curves | None
    margins: Curves | None


def load_bundle(settings: Settings) -> Bundle:
    """Read and verify the bundle that the settings name, onto the device that they name.

    Raises:
        DeviceError: if there is no such device.
        ModeguardError: whatever `read_bundle` says.
    """
    if settings.torch_threads is not None:
        torch.set_num_threads(settings.torch_threads)
    return read_bundle(
        settings.bundle,
        device=resolve_device(settings.device),
        dtype=settings.dtype,
        allowed_factories=settings.allowed_factories,
        trusted_programs=settings.trusted_programs,
        expected_digest=settings.bundle_digest,
    )


@torch.inference_mode()
def judge(bundle: Bundle, images: Sequence[Tensor], *, rows_per_call: int, with_curves: bool) -> list[Verdict]:
    """Ask the detector about the images of one request.

    Args:
        bundle: classifier and detector.
        images: each (c, h, w) uint8, as `decode_image` gives them.
        rows_per_call: bound on the rows of one call of the classifier.
        with_curves: whether the verdicts carry their loss curves.
    """
    pixels = to_pixels(torch.stack(tuple(images)).to(bundle.detector.calibration_scores.device))
    found = detect(bundle.detector, bundle.classifier, pixels, rows_per_call=rows_per_call)
    return _verdicts(found, with_curves=with_curves)


def _verdicts(found: Detections, *, with_curves: bool) -> list[Verdict]:
    scores, p_values = found.score.tolist(), found.p_value.tolist()
    verdicts = []
    for i, (predicted, reason) in enumerate(zip(found.predicted.tolist(), found.reasons, strict=True)):
        has_curves = with_curves and bool(found.has_template[i])
        verdicts.append(
            Verdict(
                predicted=predicted,
                score=None if reason else scores[i],
                p_value=None if reason else p_values[i],
                is_adversarial=None if reason else bool(found.is_adversarial[i]),
                reason=reason,
                losses=_finite(found.curves.losses[i]) if has_curves else None,
                margins=_finite(found.curves.margins[i]) if has_curves else None,
            )
        )
    return verdicts


def _finite(curves: Tensor) -> Curves:
    return [[value if math.isfinite(value) else None for value in curve] for curve in curves.tolist()]
