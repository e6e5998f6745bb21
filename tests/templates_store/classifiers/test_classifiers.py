"""Naming and building classifiers: the logits are the network's on normalised images, and nonsense is refused."""

import dataclasses
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modeguard.templates_store.classifiers import (
    ClassifierError,
    ClassifierSpec,
    DeviceError,
    Trust,
    build_classifier,
    resolve_device,
)
from tests.templates_store.classifiers.toy_classifiers import (
    DIGITS,
    LINEAR,
    RESNET,
    TRUST_LINEAR,
    VGG,
    linear_network,
    normalised,
    random_pixels,
)

HERE = __name__


def network_of_three_classes() -> nn.Module:
    return linear_network(3)


def no_network() -> str:
    return "a network"


class Viewing(nn.Module):
    """A common habit that takes the ordinary layout for granted."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 1)
        self.linear = nn.Linear(16, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.convolution(images).view(-1, 16))
        return logits


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_classes": 1}, "at least 2"),
        ({"n_classes": True}, "whole number"),
        ({"input_shape": (3, 32)}, "channels, height, width"),
        ({"input_shape": (3, 0, 32)}, "positive"),
        ({"mean": (0.5,)}, "each of the 3 channels"),
        ({"mean": (0.5, 0.5, float("nan"))}, "finite"),
        ({"std": (0.5, 0.5, 0.0)}, "positive"),
        ({"architecture": ""}, "a name"),
    ],
)
def test_a_spec_of_nonsense_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ClassifierError, match=message):
        dataclasses.replace(RESNET, **change)


@pytest.mark.parametrize("spec", [DIGITS, RESNET, VGG, dataclasses.replace(VGG, n_classes=100)])
def test_logits_are_those_of_the_network_on_normalised_images(spec: ClassifierSpec) -> None:
    classifier = build_classifier(spec).eval()
    pixels = random_pixels(spec.input_shape, n=2)
    expected = classifier.network(normalised(pixels, spec))
    assert expected.shape == (2, spec.n_classes)
    torch.testing.assert_close(classifier(pixels), expected, rtol=1e-4, atol=1e-4)


def test_the_gradient_reaches_the_pixels() -> None:
    """Of logit k of a linear network it is row k of the matrix over the standard deviation."""
    classifier = build_classifier(LINEAR, trust=TRUST_LINEAR).eval()
    pixels = random_pixels(LINEAR.input_shape).requires_grad_()
    classifier(pixels)[:, 1].sum().backward()
    row = classifier.weights()["1.weight"][1].view(3, 2, 2) / torch.tensor(LINEAR.std).view(3, 1, 1)
    torch.testing.assert_close(pixels.grad, row.expand_as(pixels))


def test_the_relus_of_vgg16_are_where_the_layer_baselines_look() -> None:
    """Indices of the table of published detectors that read these layers (Harder et al. 2021)."""
    layers = build_classifier(VGG).network.named_modules()
    found = [name.removeprefix("features.") for name, layer in layers if isinstance(layer, nn.ReLU)]
    assert list(map(int, found)) == [2, 5, 9, 12, 16, 19, 22, 26, 29, 32, 36, 39, 42]


@pytest.mark.parametrize(
    ("spec", "n_parameters"),
    [
        (RESNET, 272_474),  # 0.27 million: He et al. 2016, table 6; with 1x1 convolutions 272,474
        (VGG, 14_728_266),
        (dataclasses.replace(VGG, n_classes=100), 34_015_396),
    ],
)
def test_parameter_counts(spec: ClassifierSpec, n_parameters: int) -> None:
    assert sum(parameter.numel() for parameter in build_classifier(spec).parameters()) == n_parameters


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (
            "torchvision:resnet19",
            r"torchvision has no classifier 'resnet19', did you mean resnet\d+ or resnet\d+ or resnet\d+\?",
        ),
        ("torchvision:fcn_resnet50", "no classifier"),  # would fetch weights of its backbone
        ("os:getcwd", "not allowed"),
        ("torch.export", "never built"),
    ],
)
def test_what_cannot_be_built_says_why(architecture: str, message: str) -> None:
    with pytest.raises(ClassifierError, match=message):
        build_classifier(dataclasses.replace(RESNET, architecture=architecture))


def test_timm_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ClassifierError, match=r"pip install 'modeguard\[timm\]'"):
        build_classifier(dataclasses.replace(RESNET, architecture="timm:resnet18"))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (dataclasses.replace(VGG, input_shape=(3, 64, 64)), "32×32"),
        (dataclasses.replace(DIGITS, input_shape=(1, 1, 8)), "at least 2×2"),
        (
            ClassifierSpec("torchvision:resnet18", 10, (1, 32, 32), (0.5,), (0.5,)),
            "takes 3 channels",
        ),
    ],
)
def test_images_that_the_architecture_cannot_take_are_refused(spec: ClassifierSpec, message: str) -> None:
    with pytest.raises(ClassifierError, match=message):
        build_classifier(spec)


def test_a_torchvision_network_has_torchvisions_keys() -> None:
    classifier = build_classifier(ClassifierSpec("torchvision:squeezenet1_0", 7, (3, 64, 64), (0.5,) * 3, (0.5,) * 3))
    assert "features.3.expand3x3.weight" in classifier.weights()
    assert classifier.eval()(random_pixels((3, 64, 64), n=2)).shape == (2, 7)


def test_a_factory_is_called_only_where_it_is_allowed() -> None:
    spec = dataclasses.replace(LINEAR, architecture=f"{HERE}:network_of_three_classes")
    with pytest.raises(ClassifierError, match="not allowed"):
        build_classifier(spec, trust=TRUST_LINEAR)
    assert build_classifier(spec, trust=Trust((spec.architecture,)))(random_pixels((3, 2, 2))).shape == (5, 3)


def test_a_network_of_the_users_own_gets_the_ordinary_layout() -> None:
    spec = dataclasses.replace(LINEAR, architecture=f"{HERE}:Viewing")
    classifier = build_classifier(spec, trust=Trust((spec.architecture,))).eval()
    pixels = random_pixels((3, 2, 2)).to(memory_format=torch.channels_last)
    assert classifier(pixels).shape == (5, 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_package:make", "No module named"),
        (f"{HERE}:absent", "has no attribute"),
        (f"{HERE}:HERE", "expected a callable"),
        (f"{HERE}:no_network", "expected a torch.nn.Module"),
    ],
)
def test_a_factory_that_makes_no_network_is_refused(name: str, message: str) -> None:
    spec = dataclasses.replace(LINEAR, architecture=name)
    with pytest.raises(ClassifierError, match=message):
        build_classifier(spec, trust=Trust((name,)))


@pytest.mark.parametrize(("has_gpu", "expected"), [(True, "cuda"), (False, "cpu")])
def test_the_automatic_device_is_the_gpu_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, has_gpu: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert resolve_device("auto") == torch.device(expected)


def test_a_device_that_is_there_is_taken_as_it_is_named() -> None:
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("device", ["cuda:99", "gpu", ""])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    with pytest.raises(DeviceError, match=re.escape(f"expected, got {device!r} (")):
        resolve_device(device)
