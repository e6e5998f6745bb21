"""Training and test images of data that come unsplit."""

import math

import torch
from torch import Tensor

from modeguard.offline.data.records import DatasetError

__all__ = ["split_rows"]


def split_rows(labels: Tensor, train_fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split rows so that every class has about the same fraction in both parts.

    A class of two images or more has some in both parts. Classes of one image go to either, so that the fraction
    holds over all of them.

    Args:
        labels: (n,) int64.
        train_fraction: in (0, 1).
        seed: the same seed and labels give the same split.

    Returns:
        Indices of the training rows and of the test rows, each ascending.

    Raises:
        DatasetError: if one of the parts would be empty.
    """
    generator = torch.Generator().manual_seed(seed)
    train: list[Tensor] = []
    test: list[Tensor] = []
    classes = labels.unique()
    owed = 0.0  # what rounding has kept from the training part so far
    for k in classes[torch.randperm(len(classes), generator=generator)].tolist():
        rows = (labels == k).nonzero().flatten()
        rows = rows[torch.randperm(len(rows), generator=generator)]
        wanted = train_fraction * len(rows) + owed
        n_train = math.floor(wanted + 0.5)
        if len(rows) > 1:
            n_train = min(max(n_train, 1), len(rows) - 1)
        n_train = min(max(n_train, 0), len(rows))
        owed = wanted - n_train
        train.append(rows[:n_train])
        test.append(rows[n_train:])
    train_rows, test_rows = torch.cat(train).sort().values, torch.cat(test).sort().values
    if len(train_rows) == 0 or len(test_rows) == 0:
        raise DatasetError(
            f"{len(labels)} images cannot be split with train_fraction {train_fraction}: one part would be empty; "
            "add images or change the fraction"
        )
    return train_rows, test_rows
