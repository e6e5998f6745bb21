"""Weights in and out: what is loaded is what was saved, at any precision, and wrong files are named."""

import dataclasses
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from modeguard.detector import Sliced, to_pixels
from modeguard.offline.data import DataConfig, load_dataset
from modeguard.templates_store.classifiers import (
    ClassifierError,
    build_classifier,
    check_classifier,
    check_pixel_scale,
    resolve_dtype,
    save_weights,
)
from tests.templates_store.classifiers.toy_classifiers import DIGITS, RESNET, load_network, random_pixels


@pytest.fixture
def digits_weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "digits.safetensors"
    save_weights(build_classifier(DIGITS), path)
    return path


def test_a_loaded_classifier_answers_as_the_saved_one(tmp_path: Path) -> None:
    classifier = build_classifier(RESNET).eval()
    save_weights(classifier, tmp_path / "weights")
    loaded = load_network(RESNET, tmp_path / "weights", dtype="float32")
    pixels = random_pixels(RESNET.input_shape)
    assert torch.equal(loaded(pixels), classifier(pixels))
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_loading_leaves_the_random_numbers_alone(digits_weights: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    load_network(DIGITS, digits_weights)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_narrow_weights_are_cast_up(digits_weights: Path, tmp_path: Path, stored: torch.dtype) -> None:
    narrow = {name: value.to(stored) for name, value in load_file(digits_weights).items()}
    save_file(narrow, tmp_path / "narrow.safetensors")
    loaded = load_network(DIGITS, tmp_path / "narrow.safetensors", dtype="float32")
    assert all(value.dtype == torch.float32 for value in loaded.weights().values())
    assert torch.equal(loaded.weights()["features.0.weight"], narrow["features.0.weight"].float())


def test_what_is_saved_does_not_depend_on_the_precision_it_runs_with(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_weights(build_classifier(RESNET), tmp_path / "trained")
    for dtype in ("float32", "bfloat16"):
        save_weights(load_network(RESNET, tmp_path / "trained", dtype=dtype), tmp_path / dtype)
        assert (tmp_path / dtype).read_bytes() == (tmp_path / "trained").read_bytes()


def test_bfloat16_is_near_float32_and_keeps_float32_statistics(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_weights(build_classifier(RESNET), tmp_path / "weights")
    pixels = random_pixels(RESNET.input_shape)
    exact, narrow = (load_network(RESNET, tmp_path / "weights", dtype=t) for t in ("float32", "bfloat16"))
    logits = narrow(pixels)
    assert logits.dtype == torch.float32
    computed_with = narrow.network.state_dict()
    assert computed_with["conv1.weight"].dtype == torch.bfloat16
    assert computed_with["bn1.running_var"].dtype == torch.float32
    assert 0 < (logits - exact(pixels)).abs().max() < 0.05 * exact(pixels).abs().max()
    narrow.use_dtype(torch.float32)
    assert torch.equal(narrow(pixels), exact(pixels))
    with pytest.raises(ClassifierError, match=r"compute in float32 or bfloat16, not in torch\.float16"):
        narrow.use_dtype(torch.float16)


def test_the_precision_by_name() -> None:
    assert resolve_dtype("float32") == torch.float32
    assert resolve_dtype("bfloat16") == torch.bfloat16
    assert resolve_dtype("auto", "meta") == torch.float32
    with pytest.raises(ClassifierError, match="float32 or bfloat16, got 'int8'"):
        resolve_dtype("int8")


@pytest.mark.parametrize(("has_bfloat16", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_asks_the_hardware(monkeypatch: pytest.MonkeyPatch, has_bfloat16: bool, expected: torch.dtype) -> None:
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: has_bfloat16)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
    assert resolve_dtype("auto", "cpu") == expected


@pytest.mark.parametrize(("capability", "expected"), [((9, 0), torch.bfloat16), ((7, 5), torch.float32)])
def test_auto_asks_the_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: torch.dtype) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    assert resolve_dtype("auto", "cuda") == expected


def test_a_missing_file_of_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClassifierError, match=r"no file of weights at .*absent\.safetensors"):
        load_network(DIGITS, tmp_path / "absent.safetensors")


_OTHER_TYPE = b'{"a":{"dtype":"F8_E8M0","shape":[2],"data_offsets":[0,2]}}'


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04 a zip file", b"\x00" * 64, len(_OTHER_TYPE).to_bytes(8, "little") + _OTHER_TYPE + b"\x00\x00"],
)
def test_a_file_that_is_not_safetensors_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(ClassifierError, match=r"weights\.pt is not a readable safetensors file"):
        load_network(DIGITS, path)


def test_a_truncated_file_is_named(digits_weights: Path) -> None:
    digits_weights.write_bytes(digits_weights.read_bytes()[:-4])
    with pytest.raises(ClassifierError, match="not a readable safetensors file"):
        load_network(DIGITS, digits_weights)


def test_weights_of_another_architecture_name_some_keys(digits_weights: Path) -> None:
    with pytest.raises(ClassifierError, match=r"missing: bn1\.bias, .*, …; 10 unexpected: classifier\.0\.bias, .*, …"):
        load_network(RESNET, digits_weights)


def test_weights_of_another_number_of_classes_name_the_shapes(digits_weights: Path) -> None:
    with pytest.raises(ClassifierError, match=r"classifier\.2\.weight \(10, 128\) instead of \(11, 128\)"):
        load_network(dataclasses.replace(DIGITS, n_classes=11), digits_weights)


@pytest.mark.parametrize("dtype", ["int64", "int8", "float8_e4m3fn"])
def test_numbers_of_other_kinds_are_no_weights(digits_weights: Path, dtype: str) -> None:
    stored = load_file(digits_weights)
    save_file(stored | {"features.0.bias": torch.zeros(32, dtype=getattr(torch, dtype))}, digits_weights)
    with pytest.raises(ClassifierError, match=rf"features\.0\.bias torch\.{dtype} instead of torch\.float32"):
        load_network(DIGITS, digits_weights)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(digits_weights: Path, value: float) -> None:
    stored = load_file(digits_weights)
    stored["features.2.bias"][3] = value
    save_file(stored, digits_weights)
    with pytest.raises(ClassifierError, match=r"features\.2\.bias holds values that are not finite"):
        load_network(DIGITS, digits_weights)


def test_the_counter_of_batch_norm_may_be_absent(tmp_path: Path) -> None:
    """Files from before torch 0.4.1, and many converted ones, have none."""
    torch.manual_seed(0)
    classifier = build_classifier(RESNET).eval()
    state = {k: v for k, v in classifier.weights().items() if not k.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "weights")
    pixels = random_pixels(RESNET.input_shape)
    assert torch.equal(load_network(RESNET, tmp_path / "weights", dtype="float32")(pixels), classifier(pixels))


def test_a_failed_save_leaves_the_old_file(digits_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digits_weights.read_bytes()

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_weights(build_classifier(DIGITS), digits_weights)
    monkeypatch.undo()
    assert digits_weights.read_bytes() == before
    assert list(digits_weights.parent.iterdir()) == [digits_weights]


@pytest.mark.skipif(
    not {"MODEGUARD_DATA", "MODEGUARD_WEIGHTS"} <= set(os.environ),
    reason="MODEGUARD_DATA (with cifar-10-batches-py) and MODEGUARD_WEIGHTS are not set",
)
def test_a_real_classifier_is_as_good_as_published() -> None:
    """ResNet-20 with the weights of chenyaofo/pytorch-cifar-models: 92.60 % on all 10,000 test images."""
    spec = dataclasses.replace(RESNET, mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))
    weights = Path(os.environ["MODEGUARD_WEIGHTS"]) / "cifar10_resnet20.safetensors"
    test = load_dataset(DataConfig("cifar10", Path(os.environ["MODEGUARD_DATA"]))).test
    classifier = load_network(spec, weights)
    pixels, labels = to_pixels(test.images[:1000]), test.labels[:1000]
    check_classifier(classifier, pixels)
    check_pixel_scale(classifier, pixels[:200], labels[:200])
    with torch.inference_mode():
        accuracy = (Sliced(classifier)(pixels).argmax(dim=1) == labels).double().mean()
    assert abs(float(accuracy) - 0.926) < 3 * (0.926 * 0.074 / 1000) ** 0.5
