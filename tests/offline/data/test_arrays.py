"""Arrays of an .npz file: every layout gives the same bytes, each fault is named, and nothing is unpickled."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modeguard.offline.data import DataConfig, DatasetError, ImageDataset, load_dataset
from modeguard.templates_store.images import InputSpec
from tests.offline.data.trap import Trap

Arrays = dict[str, Any]


def toy_arrays(shape: tuple[int, ...] = (12, 4, 5, 3), dtype: Any = np.uint8) -> Arrays:
    values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    images = values if dtype == np.uint8 else (values / 255).astype(dtype)
    labels = np.arange(12) % 3
    return {"train_images": images, "train_labels": labels, "test_images": images[:6], "test_labels": labels[:6]}


def load_npz(path: Path, arrays: Arrays, n_classes: int | None = None, **options: Any) -> ImageDataset:
    np.savez(path, **arrays)
    return load_dataset(DataConfig("npz", path, **options), n_classes=n_classes)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(12, 4, 5), (12, 4, 5, 3), (12, 3, 4, 5), (12, 4, 5, 1)])
def test_arrays_of_every_layout_and_type_are_the_same_bytes(tmp_path: Path, shape: tuple[int, ...], dtype: Any) -> None:
    dataset = load_npz(tmp_path / "toy.npz", toy_arrays(shape, dtype))
    expected = torch.from_numpy(toy_arrays(shape)["train_images"])
    if len(shape) == 3:
        expected = expected[:, None]
    elif shape[3] in (1, 3):
        expected = expected.permute(0, 3, 1, 2)
    assert torch.equal(dataset.train.images, expected)
    assert (dataset.name, dataset.class_names) == ("toy", ("0", "1", "2"))


def test_arrays_may_name_their_classes(tmp_path: Path) -> None:
    arrays = toy_arrays() | {"class_names": np.array(["ant", "bee", "cow"])}
    assert load_npz(tmp_path / "toy.npz", arrays).class_names == ("ant", "bee", "cow")


def test_the_channels_of_a_narrow_picture_are_found_by_the_classifier(tmp_path: Path) -> None:
    np.savez(tmp_path / "toy.npz", **toy_arrays((12, 3, 4, 3)))
    with pytest.raises(DatasetError, match="on exactly one side"):
        load_dataset(DataConfig("npz", tmp_path / "toy.npz"))
    for shape in ((3, 4, 3), (3, 3, 4)):
        dataset = load_dataset(DataConfig("npz", tmp_path / "toy.npz"), input_spec=InputSpec(shape))
        assert dataset.train.images.shape == (12, *shape)


def changed(name: str, value: Callable[[Any], Any]) -> Callable[[Arrays], Arrays]:
    return lambda arrays: arrays | {name: value(arrays[name])}


FAULTY_ARRAYS: dict[str, tuple[Callable[[Arrays], Arrays], str]] = {
    "missing array": (lambda a: {k: v for k, v in a.items() if k != "test_labels"}, "no array test_labels"),
    "objects": (changed("train_labels", lambda x: x.astype(object)), "not a readable .npz of plain arrays"),
    "counts": (changed("train_labels", lambda x: x[1:]), r"labels are \(12,\)"),
    "column of labels": (changed("train_labels", lambda x: x[:, None]), r"train_labels is \(n,\) of whole numbers"),
    "labels of floats": (changed("test_labels", lambda x: x + 0.5), "whole numbers, got .*float64"),
    "negative label": (changed("test_labels", lambda x: x - 1), "from 0 on, got -1"),
    "label too large": (changed("test_labels", lambda x: x + 1), "got a test label 3"),
    "nan": (changed("train_images", lambda x: x * np.float32("nan")), "NaN or infinite"),
    "floats to 255": (changed("train_images", lambda x: x.astype(np.float32)), "ranges from 0 to 255"),
    "normalised": (changed("train_images", lambda x: x / 128.0 - 1), "undo any normalisation"),
    "int32": (changed("train_images", lambda x: x.astype(np.int32)), "got int32"),
    "flat": (changed("train_images", lambda x: x.reshape(12, -1)), r"got \(12, 60\)"),
    "empty": (changed("test_images", lambda x: x[:0]), "not empty"),
    "four channels": (changed("train_images", lambda x: np.tile(x, 2)), "on exactly one side"),
    "other size": (changed("test_images", lambda x: x[:, :2]), "one shape"),
    "no images of a class": (changed("train_labels", lambda x: np.where(x == 1, 0, x)), "1 of 3 have none: 1"),
}


@pytest.mark.parametrize("fault", FAULTY_ARRAYS)
def test_each_fault_of_arrays_is_named(tmp_path: Path, fault: str) -> None:
    change, message = FAULTY_ARRAYS[fault]
    with pytest.raises(DatasetError, match=message):
        load_npz(tmp_path / "toy.npz", change(toy_arrays()))


@pytest.mark.parametrize("content", [b"", b"no arrays", b"PK\x03\x04", "pickle"])
def test_a_file_that_is_no_npz_is_named_and_never_unpickled(tmp_path: Path, content: bytes | str) -> None:
    trap, path = tmp_path / "trap", tmp_path / "toy.npz"
    path.write_bytes(pickle.dumps(Trap(trap)) if isinstance(content, str) else content)
    with pytest.raises(DatasetError, match=r"toy\.npz is not a readable \.npz"):
        load_dataset(DataConfig("npz", path))
    assert not trap.exists()


@pytest.mark.parametrize("damage", ["deflated data", "compression method", "encryption flag"])
def test_a_damaged_archive_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "toy.npz"
    np.savez_compressed(path, **toy_arrays())
    data = bytearray(path.read_bytes())
    directory = data.index(b"PK\x01\x02")
    if damage == "deflated data":
        start = 30 + int.from_bytes(data[26:28], "little") + int.from_bytes(data[28:30], "little")
        data[start : start + 8] = b"\xff" * 8
    elif damage == "compression method":
        data[8] = data[directory + 10] = 99
    else:
        data[6] |= 1
        data[directory + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=r"toy\.npz is not a readable \.npz"):
        load_dataset(DataConfig("npz", path))


def test_an_array_alone_is_no_npz(tmp_path: Path) -> None:
    with (tmp_path / "toy.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DatasetError, match=r"not a readable \.npz"):
        load_dataset(DataConfig("npz", tmp_path / "toy.npz"))


def test_a_missing_npz_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no file .*toy\.npz; expected an \.npz with train_images"):
        load_dataset(DataConfig("npz", tmp_path / "toy.npz"))
