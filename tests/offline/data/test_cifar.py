"""The original archives of CIFAR are read exactly, and other files never."""

import os
import pickle
from pathlib import Path

import pytest
import torch

from modeguard.offline.data import DataConfig, DatasetError, load_dataset
from tests.offline.data.trap import Trap


@pytest.mark.parametrize(("name", "folder"), [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")])
def test_cifar_that_is_missing_says_where_it_is_expected(tmp_path: Path, name: str, folder: str) -> None:
    with pytest.raises(DatasetError, match=rf"expected at {tmp_path / folder} .*set download to fetch it"):
        load_dataset(DataConfig(name, tmp_path))
    with pytest.raises(DatasetError, match="needs `root`"):
        load_dataset(DataConfig(name))


def test_cifar_that_was_tampered_with_is_never_unpickled(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    (tmp_path / "cifar-10-batches-py").mkdir()
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch", "batches.meta"):
        (tmp_path / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(Trap(trap)))
    with pytest.raises(DatasetError, match="was expected at"):
        load_dataset(DataConfig("cifar10", tmp_path))
    assert not trap.exists()


@pytest.mark.skipif("MODEGUARD_DATA" not in os.environ, reason="MODEGUARD_DATA (with cifar-10-batches-py) is not set")
def test_cifar10_is_whole() -> None:
    """Counts of Krizhevsky 2009; the first test image is a cat."""
    dataset = load_dataset(DataConfig("cifar10", Path(os.environ["MODEGUARD_DATA"])), n_classes=10)
    assert torch.bincount(dataset.train.labels).tolist() == [5000] * 10
    assert torch.bincount(dataset.test.labels).tolist() == [1000] * 10
    assert dataset.class_names[int(dataset.test.labels[0])] == "cat"
    assert dataset.train.images.shape == (50000, 3, 32, 32)
