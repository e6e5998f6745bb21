"""Specs, images and small networks that the tests of this room share."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modeguard.templates_store.classifiers import ClassifierSpec, NetworkClassifier, Trust, load_classifier

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
DIGITS = ClassifierSpec("digits-cnn", 10, (1, 8, 8), (0.3,), (0.4,))
RESNET = ClassifierSpec("cifar-resnet20", 10, (3, 32, 32), MEAN, STD)
VGG = ClassifierSpec("cifar-vgg16", 10, (3, 32, 32), MEAN, STD)
LINEAR = ClassifierSpec(f"{__name__}:linear_network", 3, (3, 2, 2), MEAN, STD)
TRUST_LINEAR = Trust(factories=(LINEAR.architecture,))


def linear_network(n_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, n_classes))


def random_pixels(shape: tuple[int, int, int], n: int = 5, seed: int = 0) -> Tensor:
    return torch.rand((n, *shape), generator=torch.Generator().manual_seed(seed))


def normalised(pixels: Tensor, spec: ClassifierSpec) -> Tensor:
    """What the network of a spec sees of pixels in [0, 1]."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (spec.mean, spec.std))
    return (pixels - mean) / std


def load_network(spec: ClassifierSpec, path: Path, **options: Any) -> NetworkClassifier:
    """`load_classifier` of something that is a network."""
    classifier = load_classifier(spec, path, **options)
    assert isinstance(classifier, NetworkClassifier)
    return classifier
