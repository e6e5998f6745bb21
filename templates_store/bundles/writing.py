"""Writing a bundle, whole or not at all."""

import hashlib
import math
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from modeguard.detector import Detector, to_tensors
from modeguard.templates_store.bundles.bundle import DETECTOR_FILE, check_finite, classifier_file
from modeguard.templates_store.bundles.checks import check_cost
from modeguard.templates_store.bundles.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    MANIFEST_TOO_LONG,
    MAX_MANIFEST_BYTES,
    BundleError,
    FileInfo,
    Manifest,
    TensorInfo,
)
from modeguard.templates_store.classifiers import dtype_name, save_weights
from modeguard.templates_store.classifiers.sources import StoredClassifier
from modeguard.templates_store.files import write_directory_atomically
from modeguard.templates_store.images import InputSpec

_LIBRARIES = ("torch", "torchvision", "scikit-learn", "numpy", "pillow")


def write_bundle(
    path: Path,
    *,
    name: str,
    detector: Detector,
    classifier: StoredClassifier,
    class_names: tuple[str, ...],
    input_spec: InputSpec,
    seeds: Mapping[str, int],
    measured: Mapping[str, Any],
) -> str:
    """Write a bundle, whole or not at all.

    Args:
        path: directory to be; an existing bundle there is replaced.
        name: the recipe or the product.
        detector: fitted and calibrated.
        classifier: the classifier that the detector was fitted for, computing in the type that it was fitted in.
        class_names: (n_classes,) in the order of the logits.
        input_spec: how bytes of an image become the classifier's pixels.
        seeds: every seed that went in.
        measured: how it was measured; JSON values, finite numbers.

    Returns:
        The bundle's digest.

    Raises:
        BundleError: if something is not finite, the names do not fit, or the disk refuses (full, read-only).
    """
    if len(class_names) != classifier.n_classes:
        raise BundleError(f"{classifier.n_classes} class names are needed, one a logit, got {len(class_names)}")
    _refuse_non_finite("measured", measured)
    check_cost(detector)
    tensors = to_tensors(detector)
    check_finite(DETECTOR_FILE, tensors)
    try:
        with write_directory_atomically(path) as directory:
            weights = directory / classifier_file(classifier.spec)
            save_weights(classifier, weights)
            (directory / DETECTOR_FILE).write_bytes(safetensors.torch.save(tensors))
            manifest = Manifest(
                format_version=FORMAT_VERSION,
                name=name,
                class_names=class_names,
                classifier=classifier.spec,
                compute_dtype=dtype_name(classifier.compute_dtype),
                input=input_spec,
                detector=detector.config,
                files={
                    DETECTOR_FILE: _file_info(directory / DETECTOR_FILE, tensors),
                    weights.name: _file_info(weights, {}),
                },
                seeds=dict(seeds),
                libraries=_versions(),
                measured=dict(measured),
            )
            text = manifest.to_json()
            if len(text) > MAX_MANIFEST_BYTES:
                raise BundleError(MANIFEST_TOO_LONG)
            (directory / MANIFEST_FILE).write_bytes(text)
    except OSError as error:
        reason = error.strerror or str(error)
        raise BundleError(f"bundle {path} was not written: {reason}; what was there before is untouched") from error
    return hashlib.sha256(text).hexdigest()


def _file_info(file: Path, tensors: Mapping[str, Tensor]) -> FileInfo:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return FileInfo(digest, {name: TensorInfo.of(tensor) for name, tensor in sorted(tensors.items())})


def _versions() -> dict[str, str]:
    found = {}
    for library in _LIBRARIES:
        with suppress(PackageNotFoundError):  # scikit-learn comes with the extra that builds, and others may write too
            found[library] = version(library)
    return found


def _refuse_non_finite(place: str, value: object) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _refuse_non_finite(f"{place}.{key}", inner)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            _refuse_non_finite(f"{place}[{index}]", inner)
    elif isinstance(value, float) and not math.isfinite(value):
        raise BundleError(f"{place} is {value}; a manifest holds finite numbers only")
