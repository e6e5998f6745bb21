"""A training of seconds: three patterns in noise, small networks, and a way to stop it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modeguard.offline.data import LabelledImages
from modeguard.offline.training import EpochRecord, TrainingConfig, TrainingResult, train_classifier
from modeguard.templates_store.classifiers import ClassifierSpec

SPEC = ClassifierSpec("digits-cnn", 3, (1, 6, 6), (0.5,), (0.25,))
CONFIG = TrainingConfig(epochs=4, batch_size=16, learning_rate=0.05, crop_padding=1, flip=True, precision="float32")


def toy_images(n: int, seed: int) -> LabelledImages:
    """Noise and stripes: level, upright, or a chequered pattern, which no shift or flip makes into each other."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=generator)
    images = torch.randint(0, 120, (n, 1, 6, 6), generator=generator, dtype=torch.uint8)
    rows, columns = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij")
    patterns = torch.stack([rows, columns, rows + columns]) % 2
    images += (100 * patterns[labels]).to(torch.uint8)[:, None]
    return LabelledImages(images, labels)


TRAIN, TEST = toy_images(90, 0), toy_images(40, 1)


class WithDropout(nn.Module):
    """A factory of a network with batch norm and dropout, whose state and randomness must be resumed too."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5)
        )
        self.linear = nn.Linear(8 * 36, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.layers(images))
        return logits


class WithNormAtTheEnd(nn.Module):
    """A factory of a network whose batch norm sees one number an image and channel."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 6), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
        self.linear = nn.Linear(8, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.layers(images))
        return logits


DROPOUT = dataclasses.replace(SPEC, architecture=f"{__name__}:WithDropout")
NORM_AT_THE_END = dataclasses.replace(SPEC, architecture=f"{__name__}:WithNormAtTheEnd")


def train(
    path: Path,
    config: TrainingConfig = CONFIG,
    spec: ClassifierSpec = SPEC,
    train: LabelledImages = TRAIN,
    **options: Any,
) -> TrainingResult:
    return train_classifier(spec, train, TEST, config, checkpoint=path, **options)


def weights_of(result: TrainingResult) -> dict[str, Tensor]:
    return result.classifier.weights()


def is_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class InterruptionError(Exception):
    pass


def stop_after(n_epochs: int, error: type[Exception] = InterruptionError) -> Callable[[EpochRecord], None]:
    def on_epoch(record: EpochRecord) -> None:
        if record.epoch == n_epochs:
            raise error

    return on_epoch
