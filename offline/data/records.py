"""What a data set is, and where it comes from.

Images stay bytes (uint8): they become pixels in `modeguard.detector` and are normalised inside the classifier.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from modeguard.detector import ModeguardError

__all__ = ["DataConfig", "DatasetError", "ImageDataset", "LabelledImages"]


class DatasetError(ModeguardError, ValueError):
    """A data set that is missing, damaged, or does not fit the classifier."""


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Which data set, and where it is.

    Attributes:
        dataset: a key of `DATASETS`.
        root: the directory that holds it; for "npz" the file itself. "digits" needs none.
        download: whether "cifar10" and "cifar100" may be fetched when they are not in `root`.
        train_fraction: of data sets that come unsplit ("digits", and folders with a list of labels), in (0, 1).
        seed: of that split.
        labels: for "folder", the list of labels, relative to `root`; None for "labels.csv" if there is one.
        class_names: text file with one class name a line, relative to `root`; None for the names that the data have.
        allow_missing_classes: whether there may be classes without a single image.
    """

    dataset: str
    root: Path | None = None
    download: bool = False
    train_fraction: float = 0.8
    seed: int = 0
    labels: Path | None = None
    class_names: Path | None = None
    allow_missing_classes: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.train_fraction < 1:
            raise DatasetError(
                f"train_fraction is above 0 and below 1, so that both sets have images, got {self.train_fraction}"
            )
        if self.seed < 0:
            raise DatasetError(f"seed is a whole number of at least 0, got {self.seed}")

    def need_root(self) -> Path:
        """The root, its "~" expanded.

        Raises:
            DatasetError: if none is given.
        """
        if self.root is None:
            raise DatasetError(f"data set {self.dataset!r} needs `root`, the place where it is; got none")
        return self.root.expanduser()


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImages:
    """Images as bytes, and the index of the class of each.

    Attributes:
        images: (n, c, h, w) uint8, n at least 1.
        labels: (n,) int64, not negative.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != torch.uint8 or min(self.images.shape) < 1:
            raise DatasetError(
                f"images are (n, c, h, w) uint8 with at least one image, got {tuple(self.images.shape)} "
                f"{self.images.dtype}"
            )
        if self.labels.shape != (len(self.images),) or self.labels.dtype != torch.int64:
            raise DatasetError(
                f"labels are ({len(self.images)},) int64, one an image, got {tuple(self.labels.shape)} "
                f"{self.labels.dtype}"
            )
        if int(self.labels.min()) < 0:
            raise DatasetError(f"labels are class indices from 0 on, got {int(self.labels.min())}")

    def __len__(self) -> int:
        return len(self.images)

    def pick(self, rows: Tensor) -> "LabelledImages":
        """The images and labels of some rows (int64 indices or a mask)."""
        return LabelledImages(self.images[rows], self.labels[rows])


@dataclass(frozen=True, slots=True, eq=False)
class ImageDataset:
    """Training and test images of the same classes.

    Attributes:
        name: of the data set.
        class_names: the name of each class index; there may be classes without images.
        train: images that a classifier is trained on and templates are chosen from.
        test: images that neither has seen.
    """

    name: str
    class_names: tuple[str, ...]
    train: LabelledImages
    test: LabelledImages

    def __post_init__(self) -> None:
        train_shape, test_shape = tuple(self.train.images.shape[1:]), tuple(self.test.images.shape[1:])
        if train_shape != test_shape:
            raise DatasetError(f"training and test images have one shape (c, h, w), got {train_shape} and {test_shape}")
        for part, images in (("training", self.train), ("test", self.test)):
            largest = int(images.labels.max())
            if largest >= len(self.class_names):
                raise DatasetError(
                    f"labels are 0 to {len(self.class_names) - 1} for {len(self.class_names)} classes, got a "
                    f"{part} label {largest}; correct the labels or the number of classes"
                )
