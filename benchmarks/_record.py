"""What the benchmarks share: classifiers, images, the clock, and the record of who measured what, where and how."""

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modeguard.detector import to_pixels
from modeguard.offline.data import DataConfig, load_dataset
from modeguard.templates_store.classifiers import (
    ClassifierSpec,
    build_classifier,
    load_classifier,
)
from modeguard.templates_store.classifiers.sources import StoredClassifier

RESULTS = Path(__file__).parent / "results"
_PLACES = ("--results", "--artifacts")
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


@dataclass(frozen=True, slots=True)
class Subject:
    """A classifier to measure with, where its weights are, and the data set it belongs to."""

    spec: ClassifierSpec
    weights: str
    dataset: str


SUBJECTS = {
    "cifar-resnet20": Subject(
        ClassifierSpec("cifar-resnet20", 10, (3, 32, 32), CIFAR_MEAN, CIFAR_STD),
        "cifar10_resnet20.safetensors",
        "cifar10",
    ),
    "cifar-vgg16": Subject(
        ClassifierSpec("cifar-vgg16", 10, (3, 32, 32), CIFAR_MEAN, CIFAR_STD),
        "cifar10_vgg16.safetensors",
        "cifar10",
    ),
    "digits-cnn": Subject(
        ClassifierSpec("digits-cnn", 10, (1, 8, 8), (0.3,), (0.4,)), "digits_cnn.safetensors", "digits"
    ),
}


def load_subject(subject: Subject, *, dtype: str, device: str, seed: int) -> tuple[StoredClassifier, bool]:
    """The classifier, and whether its weights are trained; without MODEGUARD_WEIGHTS they are random."""
    weights = Path(os.environ.get("MODEGUARD_WEIGHTS", ".")) / subject.weights
    if weights.is_file():
        return load_classifier(subject.spec, weights, dtype=dtype, device=device), True
    torch.manual_seed(seed)
    classifier = build_classifier(subject.spec).to(device).eval().requires_grad_(requires_grad=False)
    return classifier, False


def load_images(
    subject: Subject, classifier: StoredClassifier, n: int, device: str, seed: int
) -> tuple[Tensor, Tensor, bool]:
    """The first n test images, their labels, and whether they are real; without MODEGUARD_DATA random pixels."""
    root = os.environ.get("MODEGUARD_DATA")
    if subject.dataset == "digits" or root:
        config = DataConfig(dataset=subject.dataset, root=Path(root) if root else None)
        test = load_dataset(config).test
        return to_pixels(test.images[:n]).to(device), test.labels[:n].to(device), True
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand((n, *subject.spec.input_shape), generator=generator).to(device)
    return images, predict(classifier, images), False


def predict(classifier: StoredClassifier, images: Tensor) -> Tensor:
    """The classes (n,) that the classifier answers."""
    with torch.no_grad():
        predicted: Tensor = classifier(images).argmax(dim=1)
    return predicted


def now(device: torch.device) -> float:
    """Seconds, after the device has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def write_record(output: Path, device: str, measured: dict[str, Any]) -> None:
    """Write a result with the command, the commit and the machine that made it."""
    record = {"command": _command(), "commit": _COMMIT, "machine": _machine(device), **measured}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
    print(f"written: {output}", flush=True)


def _command() -> str:
    """The command line without the directories, which no figure depends on; an output keeps its name."""
    options, kept = iter(sys.argv[1:]), []
    for word in options:
        if word in _PLACES:
            next(options, "")
        elif word == "--output":
            kept += [word, Path(next(options, "")).name]
        else:
            kept.append(word)
    return " ".join(["python -m", f"benchmarks.{Path(sys.argv[0]).stem}", *kept])


def _machine(device: str) -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        cpu = models[0] if models else cpu
    return {
        "cpu": cpu,
        "n_cores": os.cpu_count(),
        "n_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        "libraries": {name: version(name) for name in ("torch", "torchvision", "scikit-learn", "numpy", "foolbox")},
        "python": platform.python_version(),
    }


def _git_commit() -> str:
    """Hash of the checked-out commit, with "+changes" where files differ from it; "unknown" outside git."""
    here = Path(__file__).parent
    answers = [
        subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=False)
        for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", ":(top,exclude)benchmarks/results"])
    ]
    if answers[0].returncode != 0:
        return "unknown"
    return answers[0].stdout.strip() + ("+changes" if answers[1].stdout.strip() else "")


_COMMIT = _git_commit()  # as the code was when it was loaded: a long measurement may outlast it
