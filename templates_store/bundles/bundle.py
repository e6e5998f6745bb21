"""Bundles: a classifier and the detector fitted for it, as a directory that moves between machines as it is.

    manifest.json           what is in it, with the sha256 of the other files
    detector.safetensors    templates, reference features, calibration scores
    classifier.safetensors  weights (classifier.pt2 for an exported program)

The bundle's digest is the sha256 of the manifest, so it stands for every byte.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from modeguard.detector import (
    Detector,
    DetectorConfig,
    DetectorInputError,
    ModeguardError,
    Sliced,
    cross_entropy_and_margin,
    detect,
    from_tensors,
    smallest_calibration_set,
    to_device,
    to_tensors,
    under,
)
from modeguard.detector.scorers import SCORERS
from modeguard.templates_store.bundles.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    BundleError,
    FileInfo,
    Manifest,
    TensorInfo,
)
from modeguard.templates_store.classifiers import (
    ClassifierSpec,
    Trust,
    classifier_of,
    dtype_name,
    file_suffix,
    save_weights,
)
from modeguard.templates_store.classifiers.sources import StoredClassifier
from modeguard.templates_store.files import TensorFileError, tensors_of, write_directory_atomically
from modeguard.templates_store.images import InputSpec

DETECTOR_FILE = "detector.safetensors"
_LIBRARIES = ("torch", "torchvision", "scikit-learn", "numpy", "pillow")


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
    tensors = to_tensors(detector)
    _check_finite(DETECTOR_FILE, tensors)
    try:
        with write_directory_atomically(path) as directory:
            classifier_file = _classifier_file(classifier.spec)
            save_weights(classifier, directory / classifier_file)
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
                    classifier_file: _file_info(directory / classifier_file, {}),
                },
                seeds=dict(seeds),
                libraries={library: version(library) for library in _LIBRARIES},
                measured=dict(measured),
            )
            text = manifest.to_json()
            (directory / MANIFEST_FILE).write_bytes(text)
    except OSError as error:
        reason = error.strerror or str(error)
        raise BundleError(f"bundle {path} was not written: {reason}; what was there before is untouched") from error
    return hashlib.sha256(text).hexdigest()


def read_bundle(
    path: Path,
    *,
    device: torch.device | str = "cpu",
    dtype: str = "auto",
    allowed_factories: tuple[str, ...] = (),
    trusted_programs: tuple[str, ...] = (),
    expected_digest: str | None = None,
) -> Bundle:
    """Read and verify a bundle: version, hashes, shapes, finiteness, and that classifier and detector belong together.

    Args:
        path: the bundle's directory.
        device: where classifier and detector shall be.
        dtype: what the classifier computes in: "float32", "bfloat16", or "auto": as the detector was calibrated, but
            float32 where the device does not multiply bfloat16 natively.
        allowed_factories: "package.module:factory" names that a bundle may call to build its classifier.
        trusted_programs: sha256 of the `torch.export` programs that a bundle may bring as its classifier.
        expected_digest: of the bundle, if only this one will do; hashes inside a bundle tell damage, not exchange.
            Naming it trusts the program in it too.

    Raises:
        BundleError: naming the file and the reason.
        ClassifierError: if the classifier cannot be built, or brings code that is not trusted.
    """
    text = _read(path, MANIFEST_FILE)
    digest = hashlib.sha256(text).hexdigest()
    if expected_digest not in (None, digest):
        raise BundleError(
            f"{path} is another bundle than expected: its digest is {digest}, not {expected_digest}; put the right "
            "bundle there, or expect this one's digest if it is"
        )
    manifest = Manifest.from_json(text)
    if len(manifest.class_names) != manifest.classifier.n_classes:
        raise BundleError(f"{MANIFEST_FILE}: {manifest.classifier.n_classes} class names were expected")
    detector = to_device(_detector_of(manifest.detector, _verified_tensors(path, manifest)), device)
    classifier_file = _classifier_file(manifest.classifier)
    content = _verified_bytes(path, classifier_file, manifest)
    if expected_digest is not None:
        trusted_programs = (*trusted_programs, manifest.files[classifier_file].sha256)
    classifier = classifier_of(
        manifest.classifier,
        content,
        origin=path / classifier_file,
        dtype=manifest.compute_dtype if (dtype, manifest.compute_dtype) == ("auto", "float32") else dtype,
        device=device,
        trust=Trust(allowed_factories, trusted_programs),
    )
    _check_belongs(classifier, detector, classifier_file)
    _check_usable(classifier, detector, manifest)
    return Bundle(manifest, detector, classifier, digest)


def _classifier_file(spec: ClassifierSpec) -> str:
    return f"classifier{file_suffix(spec)}"


def _file_info(file: Path, tensors: Mapping[str, Tensor]) -> FileInfo:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return FileInfo(digest, {name: TensorInfo.of(tensor) for name, tensor in sorted(tensors.items())})


def _read(path: Path, name: str) -> bytes:
    if not path.is_dir():
        raise BundleError(f"{path} is not a bundle: no such directory; make one with `modeguard build RECIPE`")
    try:
        return (path / name).read_bytes()
    except OSError as error:
        raise BundleError(f"{path / name} cannot be read: {error.strerror}; copy the whole bundle again") from None


def _verified_bytes(path: Path, name: str, manifest: Manifest) -> bytes:
    if name not in manifest.files:
        raise BundleError(f"{MANIFEST_FILE} of {path} does not list {name}; build the bundle again")
    data = _read(path, name)
    found, expected = hashlib.sha256(data).hexdigest(), manifest.files[name].sha256
    if found != expected:
        raise BundleError(
            f"{path / name} is not the file that the manifest describes (sha256 {found[:12]}… instead of "
            f"{expected[:12]}…): it was cut short, changed or swapped; copy the whole bundle again"
        )
    return data


def _verified_tensors(path: Path, manifest: Manifest) -> dict[str, Tensor]:
    data = _verified_bytes(path, DETECTOR_FILE, manifest)
    try:
        tensors = tensors_of(data)
    except TensorFileError as error:
        raise BundleError(f"{path / DETECTOR_FILE} is no safetensors file: {error}") from None
    found = {name: TensorInfo.of(tensor) for name, tensor in tensors.items()}
    expected = manifest.files[DETECTOR_FILE].tensors
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise BundleError(
                f"{path / DETECTOR_FILE}: tensor {name!r} is {found.get(name)}, the manifest says {expected.get(name)}"
            )
    return tensors


def _detector_of(config: DetectorConfig, tensors: dict[str, Tensor]) -> Detector:
    try:
        scorer = from_tensors(SCORERS[config.scorer.kind].scorer, under("scorer", tensors), options=config.scorer)
        detector = from_tensors(Detector, tensors, config=config, scorer=scorer)
    except ModeguardError as error:
        raise BundleError(f"{DETECTOR_FILE}: {error}; build the bundle again") from None
    _check_finite(DETECTOR_FILE, tensors)
    return detector


def _check_finite(file: str, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BundleError(f"{file}: tensor {name!r} has values that are not finite; build the bundle again")


def _refuse_non_finite(place: str, value: object) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _refuse_non_finite(f"{place}.{key}", inner)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            _refuse_non_finite(f"{place}[{index}]", inner)
    elif isinstance(value, float) and not math.isfinite(value):
        raise BundleError(f"{place} is {value}; a manifest holds finite numbers only")


@torch.inference_mode()
def _check_belongs(classifier: StoredClassifier, detector: Detector, classifier_file: str) -> None:
    """The classifier must say of the templates what it said when the detector was fitted, up to rounding."""
    templates = detector.templates
    expected_shape = tuple(templates.images.shape[2:])
    if tuple(classifier.input_shape) != expected_shape or int(templates.classes[-1]) >= classifier.n_classes:
        raise BundleError(
            f"{classifier_file} takes images {classifier.input_shape} and has {classifier.n_classes} classes, but the "
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
            f"{classifier_file} is not the classifier that the detector was fitted for: its margin on a template of "
            f"class {int(labels[first])} is {float(margins[first]):.2f}, it was {float(expected[first]):.2f}"
        )


@torch.inference_mode()
def _check_usable(classifier: StoredClassifier, detector: Detector, manifest: Manifest) -> None:
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
        detect(detector, classifier, detector.templates.images[0, :1])
    except DetectorInputError as error:
        raise BundleError(f"{MANIFEST_FILE} and {DETECTOR_FILE} do not fit together: {error}") from None
