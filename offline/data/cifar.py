"""CIFAR-10 and CIFAR-100 as data sets, in the layout that the original archives unpack to."""

import importlib
from typing import Any

import torch

from modeguard.offline.data.records import DataConfig, DatasetError, ImageDataset, LabelledImages
from modeguard.templates_store.images import InputSpec

__all__ = ["load_cifar"]

_ARCHIVES = {"cifar10": ("CIFAR10", "cifar-10-batches-py"), "cifar100": ("CIFAR100", "cifar-100-python")}
"""Name of the data set to torchvision's class and the directory that it reads."""


def load_cifar(config: DataConfig, _: InputSpec | None, __: int | None) -> ImageDataset:
    """Read the archive with torchvision's reader, which checks the MD5 of every file before it unpickles any.

    Args:
        config: `dataset` says which of the two, `root` holds the directory, `download` allows fetching it.

    Raises:
        DatasetError: if the files are not there or not the original ones, with the place where they are expected.
    """
    kind, folder = _ARCHIVES[config.dataset]
    root = config.need_root()
    datasets: Any = importlib.import_module("torchvision.datasets")  # loads much; other data sets do without
    try:
        parts = [getattr(datasets, kind)(root, train=is_train, download=config.download) for is_train in (True, False)]
    except (RuntimeError, OSError) as error:
        raise DatasetError(
            f"{kind} was expected at {root / folder} ({error}); set download to fetch it, or set root to the "
            f"directory that holds {folder}, as it is unpacked from the archive of https://www.cs.toronto.edu/~kriz/cifar.html"
        ) from error
    train, test = (
        LabelledImages(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets))
        for part in parts
    )
    return ImageDataset(config.dataset, tuple(parts[0].classes), train, test)
