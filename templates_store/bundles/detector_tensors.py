"""A detector as named tensors, the way `detector.safetensors` of a bundle holds it, and back."""

from pathlib import Path

import torch
from torch import Tensor

from modeguard.detector import ClassTemplates, Detector, DetectorConfig, DetectorInputError, Neighbours
from modeguard.templates_store.bundles.manifest import BundleError

__all__ = ["DETECTOR_FILE", "check_finite", "detector_of", "tensors_of_detector"]

DETECTOR_FILE = "detector.safetensors"
_TYPES = {
    "template_classes": torch.int64,
    "template_images": torch.float32,
    "template_losses": torch.float32,
    "template_margins": torch.float32,
    "reference_features": torch.float64,
    "reference_is_adversarial": torch.bool,
    "feature_center": torch.float64,
    "feature_scale": torch.float64,
    "calibration_scores": torch.float64,
}


def tensors_of_detector(detector: Detector) -> dict[str, Tensor]:
    """The tensors by name, on the CPU."""
    templates, neighbours = detector.templates, detector.neighbours
    tensors = {
        "template_classes": templates.classes,
        "template_images": templates.images,
        "template_losses": templates.losses,
        "template_margins": templates.margins,
        "reference_features": neighbours.features,
        "reference_is_adversarial": neighbours.is_adversarial,
        "feature_center": neighbours.center,
        "feature_scale": neighbours.scale,
        "calibration_scores": detector.calibration_scores,
    }
    return {name: tensor.detach().to("cpu", _TYPES[name]).contiguous() for name, tensor in tensors.items()}


def detector_of(config: DetectorConfig, tensors: dict[str, Tensor]) -> Detector:
    """The detector of some tensors, whoever made them.

    Raises:
        BundleError: if one is missing, or they make no detector.
    """
    for name, tensor in tensors.items():
        if tensor.dtype != _TYPES.get(name, tensor.dtype):
            raise BundleError(f"{DETECTOR_FILE}: {name} is {tensor.dtype}, expected {_TYPES[name]}; build it again")
        check_finite(DETECTOR_FILE, name, tensor)
    try:
        templates = ClassTemplates(
            tensors["template_classes"],
            tensors["template_images"],
            tensors["template_losses"],
            tensors["template_margins"],
        )
        neighbours = Neighbours(
            features=tensors["reference_features"],
            is_adversarial=tensors["reference_is_adversarial"],
            center=tensors["feature_center"],
            scale=tensors["feature_scale"],
            n_neighbors=config.n_neighbors,
            weights=config.weights,
            metric=config.metric,
        )
    except KeyError as error:
        raise BundleError(f"{DETECTOR_FILE} lacks the tensor {error.args[0]!r}; build the bundle again") from None
    except DetectorInputError as error:
        raise BundleError(f"{DETECTOR_FILE}: {error}") from None
    scores = tensors["calibration_scores"]
    is_rate = scores.ndim == 1 and bool(((scores >= 0) & (scores <= 1)).all())
    if not is_rate or bool((scores.diff() < 0).any()):
        raise BundleError(
            f"{DETECTOR_FILE}: calibration_scores are one ascending row of numbers in [0, 1]; build the bundle again"
        )
    return Detector(config, templates, neighbours, scores)


def check_finite(file: Path | str, name: str, tensor: Tensor) -> None:
    """Refuse a tensor with NaN or infinity.

    Raises:
        BundleError: naming file and tensor.
    """
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise BundleError(f"{file}: tensor {name!r} has values that are not finite; build the bundle again")
