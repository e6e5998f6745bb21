"""The networks that modeguard builds itself, by name."""

from collections.abc import Callable

import torch
from torch import nn

from modeguard.templates_store.classifiers.errors import ClassifierError
from modeguard.templates_store.classifiers.networks import CifarResNet, CifarVgg, DigitsCnn
from modeguard.templates_store.classifiers.sources.networks import NetworkSource
from modeguard.templates_store.classifiers.spec import ClassifierSpec
from modeguard.templates_store.classifiers.trust import Trust

__all__ = ["ARCHITECTURES", "built_in"]

ARCHITECTURES: dict[str, Callable[[ClassifierSpec], nn.Module]] = {
    "digits-cnn": lambda spec: DigitsCnn(_at_least(spec, 2, 2), spec.n_classes),
    "cifar-resnet20": lambda spec: CifarResNet(spec.input_shape[0], spec.n_classes),
    "cifar-vgg16": lambda spec: CifarVgg(_exactly(spec, 32, 32)[0], spec.n_classes),
}
"""To add one: write its module in `networks.py` and add one line."""


def _make(name: str, spec: ClassifierSpec, _: Trust) -> nn.Module:
    return ARCHITECTURES[name](spec)


built_in = NetworkSource(_make, memory_format=torch.channels_last)


def _exactly(spec: ClassifierSpec, height: int, width: int) -> tuple[int, int, int]:
    if spec.input_shape[1:] != (height, width):
        raise ClassifierError(
            f"{spec.architecture!r} takes images of {height}×{width} pixels, got input_shape {spec.input_shape}"
        )
    return spec.input_shape


def _at_least(spec: ClassifierSpec, height: int, width: int) -> tuple[int, int, int]:
    if spec.input_shape[1] < height or spec.input_shape[2] < width:
        raise ClassifierError(
            f"{spec.architecture!r} takes images of at least {height}×{width} pixels, "
            f"got input_shape {spec.input_shape}"
        )
    return spec.input_shape
