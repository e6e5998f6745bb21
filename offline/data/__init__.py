"""Data sets by name, and which of their images play which part.

A data set is training and test images as bytes; its test images are dealt out to calibration, attacks and references
before anything is measured. What is made of the images (pixels, templates, adversarial images) does not belong here.

To add a data set: write a file with a loader, and add one line to `DATASETS` in `datasets`. Its options are fields of
`DataConfig` in `records`.
"""

from modeguard.offline.data.datasets import DATASETS, load_dataset
from modeguard.offline.data.records import DataConfig, DatasetError, ImageDataset, LabelledImages
from modeguard.offline.data.roles import Folds, ImageRoles, SplitConfig, SplitError, deal_folds, deal_roles

__all__ = [
    "DATASETS",
    "DataConfig",
    "DatasetError",
    "Folds",
    "ImageDataset",
    "ImageRoles",
    "LabelledImages",
    "SplitConfig",
    "SplitError",
    "deal_folds",
    "deal_roles",
    "load_dataset",
]
