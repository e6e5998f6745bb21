"""Whether the classifier, the detector and the manifest of a bundle belong together."""

import torch

from modeguard.detector import (
    Detector,
    DetectorInputError,
    Sliced,
    cross_entropy_and_margin,
    detect,
    rows_per_image,
    smallest_calibration_set,
)
from modeguard.templates_store.bundles.bundle import DETECTOR_FILE
from modeguard.templates_store.bundles.manifest import MANIFEST_FILE, BundleError, Manifest
from modeguard.templates_store.classifiers.sources import StoredClassifier

_MOST_ROWS, _MOST_BYTES = 10_000, 2**30
"""Bounds on what one image may cost: rows through the classifier, and memory for their pixels."""


def check_cost(detector: Detector) -> None:
    """A forged question may ask for more rows than anybody can wait for, or has the memory to make."""
    n_rows, image = rows_per_image(detector.config), detector.templates.images[0, 0]
    if n_rows > _MOST_ROWS or n_rows * image.nbytes > _MOST_BYTES:
        raise BundleError(
            f"{MANIFEST_FILE}: an image would cost {n_rows:.4g} rows of {image.nbytes} bytes, at most {_MOST_ROWS} "
            f"rows and {_MOST_BYTES} bytes are computed; build the bundle again with fewer points, templates or draws"
        )


@torch.inference_mode()
def check_belongs(classifier: StoredClassifier, detector: Detector, file: str) -> None:
    """The classifier must say of the templates what it said when the detector was fitted, up to rounding."""
    templates = detector.templates
    expected_shape = tuple(templates.images.shape[2:])
    if tuple(classifier.input_shape) != expected_shape or int(templates.classes[-1]) >= classifier.n_classes:
        raise BundleError(
            f"{file} takes images {classifier.input_shape} and has {classifier.n_classes} classes, but the "
            f"detector was fitted for images {expected_shape} and class {int(templates.classes[-1])}"
        )
    labels = templates.classes.repeat_interleave(templates.n_templates)
    _, margins = cross_entropy_and_margin(Sliced(classifier)(templates.images.flatten(0, 1)), labels)
    expected = templates.margins.flatten()
    # bfloat16 has 8 bits of mantissa: a few per cent of the logits' size after some twenty layers
    is_off = ~((margins - expected).abs() <= 0.08 * expected.abs().max())  # NaN is off too
    if bool(is_off.any()):
        first = int(is_off.nonzero()[0, 0])
        raise BundleError(
            f"{file} is not the classifier that the detector was fitted for: its margin on a template of "
            f"class {int(labels[first])} is {float(margins[first]):.2f}, it was {float(expected[first]):.2f}; "
            "copy the whole bundle again"
        )


@torch.inference_mode()
def check_usable(classifier: StoredClassifier, detector: Detector, manifest: Manifest) -> None:
    """The manifest's choices must fit the tensors: one template is judged, as every image will be."""
    if manifest.input.shape != manifest.classifier.input_shape:
        raise BundleError(
            f"{MANIFEST_FILE}: images are made {manifest.input.shape}, but the classifier takes "
            f"{manifest.classifier.input_shape}; build the bundle again"
        )
    needed, n_calibration = smallest_calibration_set(detector.config.target_fpr), len(detector.calibration_scores)
    if n_calibration < needed:
        raise BundleError(
            f"{MANIFEST_FILE}: a target FPR of {detector.config.target_fpr} needs {needed} calibration scores, "
            f"{DETECTOR_FILE} has {n_calibration}; build the bundle again"
        )
    try:
        check_cost(detector)
        detect(detector, classifier, detector.templates.images[0, :1])
    except DetectorInputError as error:
        raise BundleError(f"{MANIFEST_FILE} and {DETECTOR_FILE} do not fit together: {error}") from None
