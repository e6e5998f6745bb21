"""A bundle may bring a program as its classifier; it runs only where the reader has named it."""

import copy
import dataclasses
import hashlib
import io
from pathlib import Path

import pytest
import torch
from torch import Tensor

from modeguard.detector import Detector, detect, to_pixels
from modeguard.templates_store.bundles import BundleError, read_bundle
from modeguard.templates_store.classifiers import (
    TRUST_EVERYTHING,
    ClassifierError,
    NetworkClassifier,
    classifier_of,
)
from tests.templates_store.bundles.toy_bundle import SPEC, rehash, write

FILE = "classifier.pt2"


@pytest.fixture(scope="module")
def program(network: NetworkClassifier) -> bytes:
    batch, buffer = torch.export.Dim("n", min=1, max=4096), io.BytesIO()
    plain = copy.deepcopy(network.network).to(memory_format=torch.contiguous_format)  # as torch.export.save wants it
    exported = torch.export.export(plain, (torch.rand(2, 1, 8, 8),), dynamic_shapes=({0: batch},))
    torch.export.save(exported, buffer)
    return buffer.getvalue()


@pytest.fixture
def digest(tmp_path: Path, program: bytes, made: Detector) -> str:
    """A bundle in `tmp_path` with the program as its classifier; its digest."""
    spec = dataclasses.replace(SPEC, architecture="torch.export")
    classifier = classifier_of(spec, program, origin=Path(FILE), trust=TRUST_EVERYTHING)
    return write(tmp_path / "exported", classifier, made)


@pytest.fixture
def exported(tmp_path: Path, digest: str) -> Path:
    assert digest
    return tmp_path / "exported"


def test_a_program_in_a_bundle_is_refused_until_it_is_named(
    exported: Path, program: bytes, network: NetworkClassifier, made: Detector, image_bytes: Tensor
) -> None:
    named = hashlib.sha256(program).hexdigest()
    with pytest.raises(ClassifierError, match=f"classifier.pt2 is a torch.export program.*{named}"):
        read_bundle(exported)
    read = read_bundle(exported, trusted_programs=(named,))
    pixels = to_pixels(image_bytes)
    expected = detect(made, network, pixels).score
    torch.testing.assert_close(detect(read.detector, read.classifier, pixels).score, expected, rtol=1e-4, atol=1e-4)


def test_naming_the_bundle_trusts_the_program_in_it(exported: Path, digest: str) -> None:
    assert read_bundle(exported, expected_digest=digest).digest == digest


def test_naming_the_bundle_trusts_no_other_program(exported: Path, digest: str) -> None:
    content = (exported / FILE).read_bytes()
    (exported / FILE).write_bytes(content + b"\0")
    with pytest.raises(BundleError, match=r"classifier\.pt2 is not the file that the manifest describes"):
        read_bundle(exported, expected_digest=digest)
    rehash(exported, FILE)
    with pytest.raises(BundleError, match="is another bundle than expected"):
        read_bundle(exported, expected_digest=digest)
    with pytest.raises(ClassifierError, match="may run code of its own"):
        read_bundle(exported, trusted_programs=(hashlib.sha256(content).hexdigest(),))


def test_a_program_cannot_pass_for_weights(path: Path, program: bytes) -> None:
    """A bundle's reader who trusts nothing parses safetensors and JSON only, whatever the bytes are."""
    (path / "classifier.safetensors").write_bytes(program)
    rehash(path, "classifier.safetensors")
    with pytest.raises(ClassifierError, match="not a readable safetensors file"):
        read_bundle(path)


def test_naming_the_bundle_allows_no_factory(path: Path, network: NetworkClassifier, made: Detector) -> None:
    """A factory's code is not in the bundle, so the digest does not stand for it."""
    spec = dataclasses.replace(SPEC, architecture="os:getcwd")
    digest = write(path, NetworkClassifier(network.network, spec), made)
    with pytest.raises(ClassifierError, match="os:getcwd"):
        read_bundle(path, expected_digest=digest)
