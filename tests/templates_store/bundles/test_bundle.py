"""Bundles: the round trip, the digest, types and devices, and writing them whole or not at all."""

import errno
import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from modeguard.detector import Detector, detect, to_pixels
from modeguard.templates_store.bundles import MANIFEST_FILE, Bundle, BundleError, Manifest, read_bundle
from modeguard.templates_store.bundles import bundle as bundle_module
from modeguard.templates_store.classifiers import (
    ClassifierError,
    NetworkClassifier,
    save_weights,
)
from modeguard.templates_store.images import InputSpec
from tests.templates_store.bundles.toy_bundle import NAMES, SPEC, edit_manifest, random_classifier, weights_of, write


def test_a_bundle_judges_as_what_it_was_made_from(
    path: Path, network: NetworkClassifier, made: Detector, image_bytes: Tensor
) -> None:
    read = read_bundle(path, dtype="float32")
    pixels = to_pixels(image_bytes[:20])
    expected, found = detect(made, network, pixels), detect(read.detector, read.classifier, pixels)
    torch.testing.assert_close(found.score, expected.score, equal_nan=True)
    torch.testing.assert_close(found.p_value, expected.p_value, equal_nan=True)
    assert torch.equal(found.is_abstained, expected.is_abstained)


def test_a_manifest_says_what_went_in(path: Path, made: Detector) -> None:
    manifest = read_bundle(path).manifest
    assert (manifest.name, manifest.class_names, manifest.seeds) == ("toy", NAMES, {"recipe": 0})
    assert manifest.classifier == SPEC
    assert manifest.input == InputSpec(shape=(1, 8, 8))
    assert manifest.detector == made.config
    assert manifest.libraries["torch"] == torch.__version__.split("+")[0]


def test_the_digest_is_the_manifest_and_repeats(
    path: Path, tmp_path: Path, network: NetworkClassifier, made: Detector
) -> None:
    digest = hashlib.sha256((path / MANIFEST_FILE).read_bytes()).hexdigest()
    assert read_bundle(path).digest == digest
    assert write(tmp_path / "again", network, made) == digest
    assert write(tmp_path / "other", network, made, seeds={"recipe": 1}) != digest


def test_a_detector_calibrated_in_another_type_is_warned_of(
    path: Path, tmp_path: Path, made: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounded = random_classifier(0)
    rounded.use_dtype(torch.bfloat16)
    write(tmp_path / "rounded", rounded, made)
    assert read_bundle(tmp_path / "rounded", dtype="bfloat16").warning is None
    in_float32 = read_bundle(tmp_path / "rounded", dtype="float32")
    assert in_float32.warning is not None
    assert "calibrated in bfloat16, but the classifier computes in float32 here" in in_float32.warning
    kept, exact = weights_of(in_float32.classifier), rounded.weights()
    assert torch.equal(kept["classifier.0.weight"], exact["classifier.0.weight"])
    for has_bfloat16, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(
            "modeguard.templates_store.classifiers.compute._HAS_BFLOAT16",
            {"cpu": lambda _, answer=has_bfloat16: answer},
        )
        assert read_bundle(tmp_path / "rounded").classifier.compute_dtype == expected
        assert read_bundle(path).classifier.compute_dtype == torch.float32  # as it was calibrated
        assert read_bundle(path).warning is None
    assert read_bundle(path, dtype="bfloat16").warning is not None


def test_only_the_expected_bundle_is_read(
    path: Path, tmp_path: Path, network: NetworkClassifier, made: Detector
) -> None:
    digest = read_bundle(path).digest
    assert read_bundle(path, expected_digest=digest).digest == digest
    write(tmp_path / "other", network, made, seeds={"recipe": 1})  # as whole, but not the one
    with pytest.raises(BundleError, match=f"other is another bundle than expected: .* not {digest}; put the right"):
        read_bundle(tmp_path / "other", expected_digest=digest)


def test_a_bundle_moves(path: Path, tmp_path: Path) -> None:
    digest = read_bundle(path).digest
    moved = shutil.move(path, tmp_path / "elsewhere")
    assert read_bundle(Path(moved)).digest == digest


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_bundle_moves_to_the_gpu(path: Path, image_bytes: Tensor) -> None:
    on_cpu, on_gpu = read_bundle(path, dtype="float32"), read_bundle(path, dtype="float32", device="cuda")
    pixels = to_pixels(image_bytes[:20])
    expected = detect(on_cpu.detector, on_cpu.classifier, pixels).score
    found = detect(on_gpu.detector, on_gpu.classifier, pixels.cuda()).score.cpu()
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0, equal_nan=True)


def test_what_was_verified_is_what_is_loaded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is swapped after its hash was taken must not be served."""
    genuine = load_file(path / "classifier.safetensors")
    verified = bundle_module._verified_bytes

    def then_swap(place: Path, name: str, manifest: Manifest) -> bytes:
        content = verified(place, name, manifest)
        save_weights(random_classifier(1), place / name)
        return content

    monkeypatch.setattr(bundle_module, "_verified_bytes", then_swap)
    loaded = weights_of(read_bundle(path).classifier)
    assert all(torch.equal(loaded[name], value) for name, value in genuine.items())


def test_a_missing_bundle_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such directory; make one with `modeguard build RECIPE`"):
        read_bundle(tmp_path / "nowhere")


def test_a_bundle_with_a_classifier_of_another_kind_is_refused_with_the_known_ones(path: Path) -> None:
    edit_manifest(path, lambda manifest: manifest["classifier"].update(architecture="digit-cnn"))
    with pytest.raises(BundleError, match=r"manifest\.json: architecture: 'digit-cnn' is unknown, did you mean"):
        read_bundle(path)


def test_a_bundle_cannot_choose_code_to_run(path: Path) -> None:
    edit_manifest(path, lambda manifest: manifest["classifier"].update(architecture="os:getcwd"))
    with pytest.raises(ClassifierError, match="os:getcwd"):
        read_bundle(path)


@pytest.mark.parametrize("stage", ["save_weights", "_file_info"])
def test_a_full_disk_leaves_the_old_bundle_and_no_half_of_the_new(
    path: Path, network: NetworkClassifier, made: Detector, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    before = read_bundle(path).digest

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bundle_module, stage, full)
    with pytest.raises(
        BundleError, match="was not written: No space left on device; what was there before is untouched"
    ):
        write(path, network, made, seeds={"recipe": 7})
    monkeypatch.undo()
    assert read_bundle(path).digest == before
    assert [place.name for place in path.parent.iterdir()] == ["bundle"]


def test_what_is_not_finite_is_never_written(tmp_path: Path, network: NetworkClassifier, made: Detector) -> None:
    broken = replace(made, templates=replace(made.templates, losses=made.templates.losses * float("nan")))
    with pytest.raises(BundleError, match=r"tensor 'templates\.losses' has values that are not finite"):
        write(tmp_path / "bundle", network, broken)
    with pytest.raises(BundleError, match=r"measured\.auroc is nan"):
        write(tmp_path / "bundle", network, made, measured={"auroc": float("nan")})
    with pytest.raises(BundleError, match="3 class names are needed"):
        write(tmp_path / "bundle", network, made, class_names=("a",))
    assert list(tmp_path.iterdir()) == []


def test_a_detector_in_memory_is_of_one_device(path: Path) -> None:
    read: Bundle = read_bundle(path, device="cpu")
    assert read.detector.templates.images.device.type == "cpu"
    assert isinstance(read.classifier, NetworkClassifier)
    assert read.classifier.mean.device.type == "cpu"
