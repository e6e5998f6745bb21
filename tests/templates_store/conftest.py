"""A small bundle on the disk, and what it was made from."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from modeguard.detector import Detector, DetectorConfig, FitSet, fit, to_pixels
from modeguard.detector.questions import Curves
from modeguard.detector.scorers import NeighborsOptions
from modeguard.templates_store.classifiers import NetworkClassifier
from modeguard.templates_store.templates import choose_templates
from tests.templates_store.bundles.toy_bundle import random_classifier, write


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
    config = DetectorConfig(questions={"curves": Curves((0.0, 0.5, 1.0))}, scorer=NeighborsOptions(n_neighbors=3))
    fit_set = FitSet(to_pixels(image_bytes[:100]), torch.arange(100) % 2 == 0)
    return fit(config, network, templates, fit_set, to_pixels(image_bytes[100:]))


@pytest.fixture
def path(tmp_path: Path, network: NetworkClassifier, made: Detector) -> Path:
    write(tmp_path / "bundle", network, made)
    return tmp_path / "bundle"
