"""Bundles: a classifier and the detector fitted for it, as a directory that moves between machines as it is.

    manifest.json           what is in it, with the sha256 of the other files
    detector.safetensors    templates, reference features, calibration scores
    classifier.safetensors  weights (classifier.pt2 for an exported program)

The bundle's digest is the sha256 of the manifest, so it stands for every byte.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from modeguard.detector import Detector
from modeguard.templates_store.bundles.manifest import BundleError, Manifest
from modeguard.templates_store.classifiers import ClassifierSpec, dtype_name, file_suffix
from modeguard.templates_store.classifiers.sources import StoredClassifier

DETECTOR_FILE = "detector.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A bundle in memory: the classifier and its detector on one device.

    Attributes:
        manifest: what the bundle says of itself.
        detector: fitted and calibrated.
        classifier: the classifier that the detector was fitted for.
        digest: sha256 of the manifest, 64 hexadecimal digits.
    """

    manifest: Manifest
    detector: Detector
    classifier: StoredClassifier
    digest: str

    @property
    def warning(self) -> str | None:
        """What to know before trusting its p-values; None if there is nothing."""
        computed, calibrated = dtype_name(self.classifier.compute_dtype), self.manifest.compute_dtype
        if computed == calibrated:
            return None
        return (
            f"the detector was calibrated in {calibrated}, but the classifier computes in {computed} here: scores "
            "differ a little, so the false-positive rate is not guaranteed"
        )


def classifier_file(spec: ClassifierSpec) -> str:
    """Name of the file with the classifier."""
    return f"classifier{file_suffix(spec)}"


def check_finite(file: str, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors of a file that have NaN or infinite values; neither writing nor reading lets them through."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BundleError(f"{file}: tensor {name!r} has values that are not finite; build the bundle again")
