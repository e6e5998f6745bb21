"""The data sets that a recipe can name. To add one: write a loader and add one line to `DATASETS`.

Images stay bytes (uint8): they become pixels in `detector.pixels` and are normalised inside the classifier.
"""

import importlib
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modeguard.detector.pixels import to_bytes
from modeguard.offline.data.image_folder import load_folder, read_class_names
from modeguard.offline.data.records import (
    DataConfig,
    DatasetError,
    ImageDataset,
    LabelledImages,
    check_classes_present,
    split_rows,
)
from modeguard.templates_store.images import InputSpec

__all__ = ["DATASETS", "DataConfig", "DatasetError", "ImageDataset", "LabelledImages", "load_dataset"]

Loader = Callable[[DataConfig, InputSpec | None, int | None], ImageDataset]

_NPZ_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
_CHANNELS = (1, 3)
# what numpy and zipfile raise on files that are damaged, packed in another way, or no .npz at all
_NPZ_ERRORS = (
    ValueError,
    OSError,
    EOFError,
    AttributeError,
    TypeError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)


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


def _load_digits(config: DataConfig, _: InputSpec | None, __: int | None) -> ImageDataset:
    """1,797 handwritten digits of 8×8 pixels with values 0 to 16, bundled with scikit-learn."""
    sklearn_datasets: Any = importlib.import_module("sklearn.datasets")  # loads much; other data sets do without
    digits = sklearn_datasets.load_digits()
    values = torch.from_numpy(digits.images).unsqueeze(1)
    images, labels = to_bytes(values / 16), torch.from_numpy(digits.target).long()
    train, test = split_rows(labels, config.train_fraction, config.seed)
    every = LabelledImages(images, labels)
    return ImageDataset("digits", tuple("0123456789"), every.pick(train), every.pick(test))


def _load_cifar(config: DataConfig, _: InputSpec | None, __: int | None, *, kind: str, folder: str) -> ImageDataset:
    """torchvision's reader of the original archive. It checks the MD5 of every file before it unpickles any."""
    root = config.need_root()
    datasets: Any = importlib.import_module("torchvision.datasets")
    try:
        parts = [getattr(datasets, kind)(root, train=is_train, download=config.download) for is_train in (True, False)]
    except (RuntimeError, OSError) as error:
        raise DatasetError(
            f"{kind} was expected at {root / folder} ({error}); set download to fetch it, or set root to the "
            f"directory that holds {folder}, as it is unpacked from the archive of https://www.cs.toronto.edu/~kriz/cifar.html"
        ) from error
    train, test = (
        LabelledImages(_channels_first(torch.from_numpy(part.data)), torch.tensor(part.targets)) for part in parts
    )
    return ImageDataset(config.dataset, tuple(parts[0].classes), train, test)


def _load_npz(config: DataConfig, input_spec: InputSpec | None, n_classes: int | None) -> ImageDataset:
    """Arrays train_images, train_labels, test_images, test_labels, and optionally class_names, of one .npz file.

    Images are (n, h, w), (n, h, w, c) or (n, c, h, w) with c 1 or 3, uint8, or floating point in [0, 1].
    """
    path = config.need_root()
    arrays = _read_npz(path)
    train, test = (
        LabelledImages(
            _npz_images(arrays[f"{part}_images"], f"{path}: {part}_images", input_spec),
            _npz_labels(arrays[f"{part}_labels"], f"{path}: {part}_labels"),
        )
        for part in ("train", "test")
    )
    dataset = ImageDataset(path.stem, _npz_class_names(config, arrays, path, train, n_classes), train, test)
    check_classes_present(dataset.class_names, train.labels, config)
    return dataset


def _read_npz(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    if not path.is_file():
        raise DatasetError(f"no file {path}; expected an .npz with {', '.join(_NPZ_ARRAYS)}")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files if name in (*_NPZ_ARRAYS, "class_names")}
    except _NPZ_ERRORS as error:
        raise DatasetError(
            f"{path} is not a readable .npz of plain arrays ({error}); write it with numpy.savez, without objects"
        ) from error
    if missing := [name for name in _NPZ_ARRAYS if name not in arrays]:
        raise DatasetError(f"{path} has no array {', '.join(missing)}; expected {', '.join(_NPZ_ARRAYS)}")
    return arrays


def _npz_images(array: np.ndarray[Any, Any], place: str, input_spec: InputSpec | None) -> Tensor:
    if array.ndim not in (3, 4) or array.size == 0:
        raise DatasetError(f"{place} is (n, h, w), (n, h, w, c) or (n, c, h, w) and not empty, got {array.shape}")
    return _npz_channels_first(_npz_bytes(array, place), place, input_spec)


def _npz_bytes(array: np.ndarray[Any, Any], place: str) -> Tensor:
    if array.dtype == np.uint8:
        return torch.from_numpy(array)
    if array.dtype not in (np.float16, np.float32, np.float64):
        raise DatasetError(f"{place} is uint8, or floating point in [0, 1], got {array.dtype}")
    pixels = torch.from_numpy(array).float()
    if not bool(torch.isfinite(pixels).all()):
        raise DatasetError(f"{place} holds NaN or infinite values, expected numbers in [0, 1]")
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        raise DatasetError(
            f"{place} ranges from {low:g} to {high:g}, expected floating point in [0, 1] or uint8; undo any "
            "normalisation (the classifier does it) and divide values of 0 to 255 by 255"
        )
    return to_bytes(pixels)


def _npz_channels_first(images: Tensor, place: str, input_spec: InputSpec | None) -> Tensor:
    if images.ndim == 3:
        return images.unsqueeze(1)
    first, last = images.shape[1] in _CHANNELS, images.shape[3] in _CHANNELS
    if first and last and input_spec is not None:
        first = tuple(images.shape[1:]) == input_spec.shape
        last = not first
    if first == last:
        raise DatasetError(
            f"{place} is (n, h, w, c) or (n, c, h, w) with c 1 or 3 on exactly one side, got {tuple(images.shape)}"
        )
    return images.contiguous() if first else _channels_first(images)


def _npz_labels(array: np.ndarray[Any, Any], place: str) -> Tensor:
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DatasetError(f"{place} is (n,) of whole numbers, got {array.shape} {array.dtype}")
    return torch.from_numpy(array.astype(np.int64))


def _npz_class_names(
    config: DataConfig,
    arrays: dict[str, np.ndarray[Any, Any]],
    path: Path,
    train: LabelledImages,
    n_classes: int | None,
) -> tuple[str, ...]:
    if config.class_names is not None:
        return read_class_names(path.parent / config.class_names)
    if "class_names" in arrays:
        return tuple(str(name) for name in arrays["class_names"].reshape(-1))
    return tuple(str(k) for k in range(n_classes or int(train.labels.max()) + 1))


def _channels_first(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).contiguous()


DATASETS: dict[str, Loader] = {
    "digits": _load_digits,
    "cifar10": partial(_load_cifar, kind="CIFAR10", folder="cifar-10-batches-py"),
    "cifar100": partial(_load_cifar, kind="CIFAR100", folder="cifar-100-python"),
    "folder": load_folder,
    "npz": _load_npz,
}
