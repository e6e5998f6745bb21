"""Arrays of an .npz file as a data set: train_images, train_labels, test_images, test_labels, optionally class_names.

Images are (n, h, w), (n, h, w, c) or (n, c, h, w) with c 1 or 3, uint8, or floating point in [0, 1]; labels are
(n,) whole numbers.
"""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modeguard.detector import to_bytes
from modeguard.offline.data.classes import check_classes_present, read_class_names
from modeguard.offline.data.records import DataConfig, DatasetError, ImageDataset, LabelledImages
from modeguard.templates_store.images import InputSpec

__all__ = ["load_arrays"]

_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
_CHANNELS = (1, 3)
# what numpy and zipfile raise on files that are damaged, packed in another way, or no .npz at all
_READING_ERRORS = (
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


def load_arrays(config: DataConfig, input_spec: InputSpec | None, n_classes: int | None) -> ImageDataset:
    """Read the arrays of one .npz file.

    Args:
        config: `root` is the file; `class_names`, if given, is relative to its directory.
        input_spec: says which side holds the channels of pictures that are as narrow as a pixel has channels.
        n_classes: of the classifier, where nothing names the classes.

    Raises:
        DatasetError: naming the file, and the array that is missing or wrong.
    """
    path = config.need_root()
    arrays = _read(path)
    train, test = (
        LabelledImages(
            _images(arrays[f"{part}_images"], f"{path}: {part}_images", input_spec),
            _labels(arrays[f"{part}_labels"], f"{path}: {part}_labels"),
        )
        for part in ("train", "test")
    )
    dataset = ImageDataset(path.stem, _class_names(config, arrays, path, train, n_classes), train, test)
    check_classes_present(dataset.class_names, train.labels, config)
    return dataset


def _read(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    if not path.is_file():
        raise DatasetError(f"no file {path}; expected an .npz with {', '.join(_ARRAYS)}")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files if name in (*_ARRAYS, "class_names")}
    except _READING_ERRORS as error:
        raise DatasetError(
            f"{path} is not a readable .npz of plain arrays ({error}); write it with numpy.savez, without objects"
        ) from error
    if missing := [name for name in _ARRAYS if name not in arrays]:
        raise DatasetError(f"{path} has no array {', '.join(missing)}; expected {', '.join(_ARRAYS)}")
    return arrays


def _images(array: np.ndarray[Any, Any], place: str, input_spec: InputSpec | None) -> Tensor:
    if array.ndim not in (3, 4) or array.size == 0:
        raise DatasetError(f"{place} is (n, h, w), (n, h, w, c) or (n, c, h, w) and not empty, got {array.shape}")
    return _channels_first(_bytes(array, place), place, input_spec)


def _bytes(array: np.ndarray[Any, Any], place: str) -> Tensor:
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


def _channels_first(images: Tensor, place: str, input_spec: InputSpec | None) -> Tensor:
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
    return images.contiguous() if first else images.permute(0, 3, 1, 2).contiguous()


def _labels(array: np.ndarray[Any, Any], place: str) -> Tensor:
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DatasetError(f"{place} is (n,) of whole numbers, got {array.shape} {array.dtype}")
    return torch.from_numpy(array.astype(np.int64))


def _class_names(
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
