"""The handwritten digits that come with scikit-learn, as a data set: nothing to download."""

import importlib
from typing import Any

import torch

from modeguard.detector import to_bytes
from modeguard.offline.data.records import DataConfig, ImageDataset, LabelledImages
from modeguard.offline.data.splitting import split_rows
from modeguard.templates_store.images import InputSpec

__all__ = ["load_digits"]


def load_digits(config: DataConfig, _: InputSpec | None, __: int | None) -> ImageDataset:
    """1,797 digits of 8×8 pixels with values 0 to 16, split by `train_fraction` and `seed` of the configuration."""
    sklearn_datasets: Any = importlib.import_module("sklearn.datasets")  # loads much; other data sets do without
    digits = sklearn_datasets.load_digits()
    values = torch.from_numpy(digits.images).unsqueeze(1)
    images, labels = to_bytes(values / 16), torch.from_numpy(digits.target).long()
    train, test = split_rows(labels, config.train_fraction, config.seed)
    every = LabelledImages(images, labels)
    return ImageDataset("digits", tuple("0123456789"), every.pick(train), every.pick(test))
