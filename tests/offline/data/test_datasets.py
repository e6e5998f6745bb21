"""A data set is found by its name, read exactly, and refused where it does not fit the classifier."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from modeguard.offline.data import DATASETS, DataConfig, DatasetError, load_dataset
from modeguard.templates_store.images import InputSpec


def test_an_unknown_data_set_lists_the_known_ones() -> None:
    with pytest.raises(DatasetError, match=f"known are {', '.join(DATASETS)}"):
        load_dataset(DataConfig("mnist"))


def test_digits_are_scikit_learns_scaled_to_bytes() -> None:
    dataset = load_dataset(DataConfig("digits"), input_spec=InputSpec((1, 8, 8)), n_classes=10)
    every = torch.cat([dataset.train.images, dataset.test.images])
    assert every.shape == (1797, 1, 8, 8)
    expected = np.round(load_digits().images * 255 / 16)
    assert sorted(every.sum((1, 2, 3)).tolist()) == sorted(expected.sum((1, 2)).astype(int).tolist())
    assert set(np.unique(every.numpy())) == {round(v * 255 / 16) for v in range(17)}


def test_the_split_of_digits_is_stratified_and_follows_the_seed() -> None:
    first, again, other = (load_dataset(DataConfig("digits", seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(first.train.images, again.train.images)
    assert not torch.equal(first.train.labels, other.train.labels)
    counts = torch.bincount(first.train.labels) + torch.bincount(first.test.labels)
    assert ((torch.bincount(first.train.labels) - 0.8 * counts).abs() < 1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_spec": InputSpec((3, 8, 8))}, r"are \(1, 8, 8\), the classifier takes \(3, 8, 8\)"),
        ({"n_classes": 100}, "has 10 classes, the classifier 100"),
    ],
)
def test_a_data_set_that_does_not_fit_the_classifier_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load_dataset(DataConfig("digits"), **options)
