"""A bundle of a random classifier for three classes, and what a forger would do with it."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modeguard.detector import Detector
from modeguard.templates_store.bundles import MANIFEST_FILE, write_bundle
from modeguard.templates_store.classifiers import ClassifierSpec, NetworkClassifier, build_classifier
from modeguard.templates_store.classifiers.sources import StoredClassifier
from modeguard.templates_store.images import InputSpec

SPEC = ClassifierSpec("digits-cnn", n_classes=3, input_shape=(1, 8, 8), mean=(0.5,), std=(0.5,))
NAMES = ("zero", "one", "two")


def random_classifier(seed: int) -> NetworkClassifier:
    torch.manual_seed(seed)
    return build_classifier(SPEC).eval().requires_grad_(requires_grad=False)


def write(path: Path, network: StoredClassifier, made: Detector, **changes: Any) -> str:
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


def weights_of(classifier: StoredClassifier) -> dict[str, Tensor]:
    assert isinstance(classifier, NetworkClassifier)
    return classifier.weights()


def edit_manifest(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((path / MANIFEST_FILE).read_text())
    change(manifest)
    (path / MANIFEST_FILE).write_text(json.dumps(manifest))


def rehash(path: Path, name: str) -> None:
    """What a careful forger would do: make the manifest agree with a changed file."""
    digest = hashlib.sha256((path / name).read_bytes()).hexdigest()
    edit_manifest(path, lambda manifest: manifest["files"][name].update(sha256=digest))
