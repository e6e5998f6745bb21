"""Reading a bundle: nothing in it is used before it was verified."""

import hashlib
import stat
from pathlib import Path

import torch
from torch import Tensor

from modeguard.detector import Detector, DetectorConfig, ModeguardError, from_tensors, to_device, under
from modeguard.detector.scorers import SCORERS
from modeguard.templates_store.bundles.bundle import DETECTOR_FILE, Bundle, check_finite, classifier_file
from modeguard.templates_store.bundles.checks import check_belongs, check_usable
from modeguard.templates_store.bundles.manifest import (
    MANIFEST_FILE,
    MANIFEST_TOO_LONG,
    MAX_MANIFEST_BYTES,
    BundleError,
    Manifest,
    TensorInfo,
)
from modeguard.templates_store.classifiers import Trust, classifier_of
from modeguard.templates_store.files import TensorFileError, tensors_of


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
    text = _read(path, MANIFEST_FILE, max_bytes=MAX_MANIFEST_BYTES)
    digest = hashlib.sha256(text).hexdigest()
    if expected_digest not in (None, digest):
        raise BundleError(
            f"{path} is another bundle than expected: its digest is {digest}, not {expected_digest}; put the right "
            "bundle there, or expect this one's digest if it is"
        )
    manifest = Manifest.from_json(text)
    if len(manifest.class_names) != manifest.classifier.n_classes:
        raise BundleError(
            f"{MANIFEST_FILE}: {manifest.classifier.n_classes} class names were expected, got "
            f"{len(manifest.class_names)}; build the bundle again"
        )
    detector = to_device(_detector_of(manifest.detector, _verified_tensors(path, manifest)), device)
    name = classifier_file(manifest.classifier)
    content = _verified_bytes(path, name, manifest)
    if expected_digest is not None:
        trusted_programs = (*trusted_programs, manifest.files[name].sha256)
    classifier = classifier_of(
        manifest.classifier,
        content,
        origin=path / name,
        dtype=manifest.compute_dtype if (dtype, manifest.compute_dtype) == ("auto", "float32") else dtype,
        device=device,
        trust=Trust(allowed_factories, trusted_programs),
    )
    check_belongs(classifier, detector, name)
    check_usable(classifier, detector, manifest)
    return Bundle(manifest, detector, classifier, digest)


def _read(path: Path, name: str, *, max_bytes: int | None = None) -> bytes:
    if not path.is_dir():
        raise BundleError(f"{path} is not a bundle: no such directory; make one with `modeguard build RECIPE`")
    try:
        place = (path / name).stat()
        if not stat.S_ISREG(place.st_mode):  # a pipe or a device might never end
            raise BundleError(f"{path / name} cannot be read: it is no regular file; copy the whole bundle again")
        if max_bytes is not None and place.st_size > max_bytes:
            raise BundleError(f"{path / name} is not the manifest of a bundle: {MANIFEST_TOO_LONG}")
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
                f"{path / DETECTOR_FILE}: tensor {name!r} is {found.get(name)}, the manifest says "
                f"{expected.get(name)}; copy the whole bundle again"
            )
    return tensors


def _detector_of(config: DetectorConfig, tensors: dict[str, Tensor]) -> Detector:
    try:
        scorer = from_tensors(SCORERS[config.scorer.kind].scorer, under("scorer", tensors), options=config.scorer)
        detector = from_tensors(Detector, tensors, config=config, scorer=scorer)
    except ModeguardError as error:
        raise BundleError(f"{DETECTOR_FILE}: {error}; build the bundle again") from None
    check_finite(DETECTOR_FILE, tensors)
    return detector
