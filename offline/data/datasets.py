"""The data sets that a recipe can name. To add one: write a file with a loader and add one line to `DATASETS`."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from modeguard.offline.data.arrays import load_arrays
from modeguard.offline.data.cifar import load_cifar
from modeguard.offline.data.digits import load_digits
from modeguard.offline.data.image_folder import load_folder
from modeguard.offline.data.records import DataConfig, DatasetError, ImageDataset
from modeguard.templates_store.images import InputSpec

__all__ = ["DATASETS", "Loader", "load_dataset"]

Loader = Callable[[DataConfig, InputSpec | None, int | None], ImageDataset]
"""Reads the data set that a configuration describes.

It is also told what the classifier takes and how many classes that has, each None where there is no classifier; a
loader that has no use for them leaves them, because `load_dataset` compares them with what comes back.
"""

DATASETS: Mapping[str, Loader] = MappingProxyType(
    {
        "digits": load_digits,
        "cifar10": load_cifar,
        "cifar100": load_cifar,
        "folder": load_folder,
        "npz": load_arrays,
    }
)
"""Name in a recipe to loader."""


def load_dataset(
    config: DataConfig, *, input_spec: InputSpec | None = None, n_classes: int | None = None
) -> ImageDataset:
    """Read the data set that a configuration names.

    Args:
        config: which one, and where it is.
        input_spec: what the classifier takes. Files of a folder are made into that; arrays must have its shape.
        n_classes: of the classifier; a data set of another number of classes is refused. A folder with a list of
            labels may show only some of them.

    Raises:
        DatasetError: saying what was expected, what came, and the way out.
    """
    if config.dataset not in DATASETS:
        raise DatasetError(f"data set {config.dataset!r} is unknown; known are {', '.join(DATASETS)}")
    dataset = DATASETS[config.dataset](config, input_spec, n_classes)
    shape = tuple(dataset.train.images.shape[1:])
    if input_spec is not None and shape != input_spec.shape:
        raise DatasetError(
            f"images of data set {config.dataset!r} are {shape}, the classifier takes {input_spec.shape}"
        )
    if n_classes is not None and len(dataset.class_names) != n_classes:
        raise DatasetError(
            f"data set {config.dataset!r} has {len(dataset.class_names)} classes, the classifier {n_classes}; "
            "correct n_classes or choose the data set that the classifier was trained on"
        )
    return dataset
