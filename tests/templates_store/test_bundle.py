"""Bundles: the round trip, the digest, and everything that must not be read."""

import errno
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from detector import Detector, DetectorConfig, FitSet, detect, fit_detector, to_pixels
from templates_store import bundle as bundle_module
from templates_store.bundle import DETECTOR_FILE, Bundle, read_bundle, write_bundle
from templates_store.classifiers import (
    ClassifierError,
    ClassifierSpec,
    NetworkClassifier,
    build_classifier,
    save_weights,
)
from templates_store.images import InputSpec
from templates_store.manifest import MANIFEST_FILE, BundleError, Manifest
from templates_store.selection import choose_templates

SPEC = ClassifierSpec("digits-cnn", n_classes=3, input_shape=(1, 8, 8), mean=(0.5,), std=(0.5,))
NAMES = ("zero", "one", "two")


def random_classifier(seed: int) -> NetworkClassifier:
    torch.manual_seed(seed)
    return build_classifier(SPEC).eval().requires_grad_(requires_grad=False)


@pytest.fixture(scope="module")
def network() -> NetworkClassifier:
    return random_classifier(0)


@pytest.fixture(scope="module")
def image_bytes() -> Tensor:
    return torch.randint(0, 256, (200, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture(scope="module")
def made(network: NetworkClassifier, image_bytes: Tensor) -> Detector:
    labels = network(to_pixels(image_bytes)).argmax(dim=1)
    templates = choose_templates(network, image_bytes, labels, n_templates=1, max_loss=10.0, missing="abstain")
    config = DetectorConfig(alphas=(0.0, 0.5, 1.0), n_neighbors=3)
    fit_set = FitSet(to_pixels(image_bytes[:100]), torch.arange(100) % 2 == 0)
    return fit_detector(config, network, templates, fit_set, to_pixels(image_bytes[100:]))


@pytest.fixture
def path(tmp_path: Path, network: NetworkClassifier, made: Detector) -> Path:
    write(tmp_path / "bundle", network, made)
    return tmp_path / "bundle"


def write(path: Path, network: NetworkClassifier, made: Detector, **changes: Any) -> str:
    options = {
        "name": "toy",
        "detector": made,
        "classifier": network,
        "class_names": NAMES,
        "input_spec": InputSpec(shape=(1, 8, 8)),
        "seeds": {"recipe": 0},
        "measured": {"auroc": 0.9},
    }
    return write_bundle(path, **{**options, **changes})


def edit_manifest(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((path / MANIFEST_FILE).read_text())
    change(manifest)
    (path / MANIFEST_FILE).write_text(json.dumps(manifest))


def rehash(path: Path, name: str) -> None:
    """What a careful forger would do: make the manifest agree with a changed file."""
    digest = hashlib.sha256((path / name).read_bytes()).hexdigest()
    edit_manifest(path, lambda manifest: manifest["files"][name].update(sha256=digest))


def test_a_bundle_judges_as_what_it_was_made_from(
    path: Path, network: NetworkClassifier, made: Detector, image_bytes: Tensor
) -> None:
    read = read_bundle(path, dtype="float32")
    pixels = to_pixels(image_bytes[:20])
    expected, found = detect(made, network, pixels), detect(read.detector, read.classifier, pixels)
    torch.testing.assert_close(found.score, expected.score, equal_nan=True)
    torch.testing.assert_close(found.p_value, expected.p_value, equal_nan=True)
    assert torch.equal(found.is_abstained, expected.is_abstained)


def test_a_manifest_says_what_went_in(path: Path) -> None:
    manifest = read_bundle(path).manifest
    assert (manifest.name, manifest.class_names, manifest.seeds) == ("toy", NAMES, {"recipe": 0})
    assert manifest.classifier == SPEC
    assert manifest.input == InputSpec(shape=(1, 8, 8))
    assert manifest.detector == DetectorConfig(alphas=(0.0, 0.5, 1.0), n_neighbors=3)
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
    assert torch.equal(in_float32.classifier.weights()["classifier.0.weight"], rounded.weights()["classifier.0.weight"])
    for has_bfloat16, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("templates_store.classifiers._HAS_BFLOAT16", {"cpu": lambda _, answer=has_bfloat16: answer})
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


def truncate(path: Path) -> None:
    file = path / DETECTOR_FILE
    file.write_bytes(file.read_bytes()[:-7])


def flip_a_byte(path: Path) -> None:
    file = path / "classifier.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(bytes(data))


def put_nan(path: Path) -> None:
    tensors = load_file(path / DETECTOR_FILE)
    tensors["calibration_scores"][3] = float("nan")
    save_file(tensors, path / DETECTOR_FILE)
    rehash(path, DETECTOR_FILE)


def change_shape(path: Path) -> None:
    tensors = load_file(path / DETECTOR_FILE)
    tensors["calibration_scores"] = tensors["calibration_scores"][1:].clone()
    save_file(tensors, path / DETECTOR_FILE)
    rehash(path, DETECTOR_FILE)


def no_safetensors(path: Path) -> None:
    (path / DETECTOR_FILE).write_bytes(b"not a tensor")
    rehash(path, DETECTOR_FILE)


def other_version(path: Path) -> None:
    edit_manifest(path, lambda manifest: manifest.update(format_version=99))


def other_classifier(path: Path) -> None:
    save_weights(random_classifier(1), path / "classifier.safetensors")
    rehash(path, "classifier.safetensors")


def without_tensor(path: Path) -> None:
    tensors = load_file(path / DETECTOR_FILE)
    del tensors["feature_scale"]
    save_file(tensors, path / DETECTOR_FILE)
    rehash(path, DETECTOR_FILE)
    edit_manifest(path, lambda manifest: manifest["files"][DETECTOR_FILE]["tensors"].pop("feature_scale"))


def unsorted_calibration(path: Path) -> None:
    tensors = load_file(path / DETECTOR_FILE)
    tensors["calibration_scores"] = tensors["calibration_scores"].flip(0).contiguous()
    save_file(tensors, path / DETECTOR_FILE)
    rehash(path, DETECTOR_FILE)


def no_scale(path: Path) -> None:
    tensors = load_file(path / DETECTOR_FILE)
    tensors["feature_scale"][0] = 0.0
    save_file(tensors, path / DETECTOR_FILE)
    rehash(path, DETECTOR_FILE)


def other_choices(**choices: object) -> Callable[[Path], None]:
    return lambda path: edit_manifest(path, lambda manifest: manifest["detector"].update(choices))


FORGERIES = {
    "calibration out of order": (unsorted_calibration, r"detector\.safetensors: calibration_scores are one ascending"),
    "no scale": (no_scale, r"detector\.safetensors: center and scale have one number"),
    "a family not known here": (other_choices(features=["telepathy"]), r"do not fit together: unknown feature"),
    "other families": (other_choices(features=["loss_curve"]), r"do not fit together: features of shape"),
    "more templates": (other_choices(n_templates=2), r"do not fit together: n_templates is in 1\.\.1"),
    "alphas that are NaN": (other_choices(alphas=[float("nan")]), r"manifest\.json is damaged: detector"),
    "too strict an FPR": (other_choices(target_fpr=0.001), r"manifest\.json: a target FPR of 0\.001 needs 999"),
    "other images": (
        lambda path: edit_manifest(path, lambda manifest: manifest["input"].update(shape=[3, 8, 8])),
        r"manifest\.json: images are made \(3, 8, 8\), but the classifier takes \(1, 8, 8\)",
    ),
    "truncated": (truncate, r"detector\.safetensors is not the file .*sha256.* cut short"),
    "tampered": (flip_a_byte, r"classifier\.safetensors is not the file .* changed or swapped"),
    "NaN": (put_nan, r"detector\.safetensors: tensor 'calibration_scores' has values that are not finite"),
    "another shape": (change_shape, r"detector\.safetensors: tensor 'calibration_scores' is TensorInfo"),
    "not safetensors": (no_safetensors, r"detector\.safetensors is no safetensors file"),
    "another version": (other_version, r"manifest\.json has format version 99, this modeguard reads version 2"),
    "another classifier": (other_classifier, r"classifier\.safetensors is not the classifier that the detector was"),
    "a missing tensor": (without_tensor, r"detector\.safetensors lacks the tensor 'feature_scale'"),
    "no manifest": (lambda path: (path / MANIFEST_FILE).unlink(), r"manifest\.json cannot be read: No such file"),
    "no classifier": (
        lambda path: (path / "classifier.safetensors").unlink(),
        r"classifier\.safetensors cannot be read",
    ),
    "no JSON": (lambda path: (path / MANIFEST_FILE).write_text("{"), r"manifest\.json is not the manifest of a bundle"),
    "an unknown entry": (
        lambda path: edit_manifest(path, lambda m: m.update(extra=1)),
        r"manifest\.json is damaged: extra",
    ),
    "no compute type": (
        lambda path: edit_manifest(path, lambda m: m.pop("compute_dtype")),
        r"manifest\.json is damaged: compute_dtype",
    ),
    "an unknown compute type": (
        lambda path: edit_manifest(path, lambda m: m.update(compute_dtype="float16")),
        r"manifest\.json is damaged: compute_dtype",
    ),
    "no seeds": (lambda path: edit_manifest(path, lambda m: m.pop("seeds")), r"manifest\.json is damaged: seeds"),
    "too few names": (
        lambda path: edit_manifest(path, lambda m: m["class_names"].pop()),
        r"3 class names were expected",
    ),
}


@pytest.mark.parametrize(("forge", "message"), FORGERIES.values(), ids=FORGERIES.keys())
def test_a_bad_bundle_is_refused_with_file_and_reason(
    path: Path, forge: Callable[[Path], object], message: str
) -> None:
    forge(path)
    with pytest.raises(BundleError, match=message):
        read_bundle(path)


def test_what_was_verified_is_what_is_loaded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is swapped after its hash was taken must not be served."""
    genuine = load_file(path / "classifier.safetensors")
    verified = bundle_module._verified_bytes

    def then_swap(place: Path, name: str, manifest: Manifest) -> bytes:
        content = verified(place, name, manifest)
        save_weights(random_classifier(1), place / "classifier.safetensors")
        return content

    monkeypatch.setattr(bundle_module, "_verified_bytes", then_swap)
    loaded = read_bundle(path).classifier.weights()
    assert all(torch.equal(loaded[name], value) for name, value in genuine.items())


def test_a_missing_bundle_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such directory; make one with `modeguard build RECIPE`"):
        read_bundle(tmp_path / "nowhere")


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
    broken = replace(made, calibration_scores=made.calibration_scores * float("nan"))
    with pytest.raises(BundleError, match="calibration_scores"):
        write(tmp_path / "bundle", network, broken)
    with pytest.raises(BundleError, match=r"measured\.auroc is nan"):
        write(tmp_path / "bundle", network, made, measured={"auroc": float("nan")})
    with pytest.raises(BundleError, match="3 class names are needed"):
        write(tmp_path / "bundle", network, made, class_names=("a",))
    assert list(tmp_path.iterdir()) == []


def test_a_detector_in_memory_is_of_one_device(path: Path) -> None:
    read: Bundle = read_bundle(path, device="cpu")
    assert read.detector.templates.images.device.type == "cpu"
    assert read.classifier.mean.device.type == "cpu"
