"""Data sets are read exactly, split so that nothing is in both parts, and what is wrong with one is named."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from modeguard.offline.data.datasets import (
    DATASETS,
    DataConfig,
    DatasetError,
    ImageDataset,
    LabelledImages,
    load_dataset,
)
from modeguard.offline.data.records import split_rows
from modeguard.templates_store.images import InputSpec, decode_image

RGB = InputSpec((3, 4, 5))


def write_picture(path, seed, size=(5, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return torch.from_numpy(pixels).permute(2, 0, 1)


@pytest.fixture
def tree(tmp_path):
    """root/train and root/test with the classes cat and dog."""
    for part, n in (("train", 3), ("test", 2)):
        for k, name in enumerate(("cat", "dog")):
            for i in range(n):
                write_picture(tmp_path / part / name / f"{i}.png", seed=100 * k + 10 * n + i)
    return tmp_path


@pytest.fixture
def listed(tmp_path):
    """Ten pictures of classes 2 and 7 and a list of labels."""
    lines = ["file,class_index,class_name"]
    for i in range(10):
        write_picture(tmp_path / f"{i}.png", seed=i)
        lines.append(f"{i}.png,{2 if i < 5 else 7},{'hen' if i < 5 else 'owl'}")
    (tmp_path / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def load_folder(root, n_classes=None, **options):
    return load_dataset(DataConfig("folder", root, **options), input_spec=RGB, n_classes=n_classes)


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_an_unknown_data_set_lists_the_known_ones():
    with pytest.raises(DatasetError, match=f"known are {', '.join(DATASETS)}"):
        load_dataset(DataConfig("mnist"))


def test_digits_are_scikit_learns_scaled_to_bytes():
    dataset = load_dataset(DataConfig("digits"), input_spec=InputSpec((1, 8, 8)), n_classes=10)
    every = torch.cat([dataset.train.images, dataset.test.images])
    assert every.shape == (1797, 1, 8, 8)
    expected = np.round(load_digits().images * 255 / 16)
    assert sorted(every.sum((1, 2, 3)).tolist()) == sorted(expected.sum((1, 2)).astype(int).tolist())
    assert set(np.unique(every.numpy())) == {round(v * 255 / 16) for v in range(17)}


def test_the_split_of_digits_is_stratified_and_follows_the_seed():
    first, again, other = (load_dataset(DataConfig("digits", seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(first.train.images, again.train.images)
    assert not torch.equal(first.train.labels, other.train.labels)
    counts = torch.bincount(first.train.labels) + torch.bincount(first.test.labels)
    assert ((torch.bincount(first.train.labels) - 0.8 * counts).abs() < 1).all()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 6), min_size=2, max_size=60),
    st.floats(0.1, 0.9),
    st.integers(0, 100),
)
def test_a_split_takes_every_row_once_and_keeps_the_fractions(labels, fraction, seed):
    labels = torch.tensor(labels)
    try:
        train, test = split_rows(labels, fraction, seed)
    except DatasetError:
        assert len(labels.unique()) == len(labels)  # one image a class: only there may a part stay empty
        assert min(fraction, 1 - fraction) * len(labels) <= 1
        return
    assert torch.equal(torch.cat([train, test]).sort().values, torch.arange(len(labels)))
    for k in labels.unique():
        if (labels == k).sum() > 1:
            assert (labels[train] == k).any()
            assert (labels[test] == k).any()


def test_a_split_of_many_classes_of_one_image_keeps_the_fraction():
    train, test = split_rows(torch.arange(80), 0.75, seed=0)
    assert (len(train), len(test)) == (60, 20)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2).long(), "uint8 with at least one image.*float32"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2).long(), r"got \(2, 4, 4\)"),
        (torch.zeros(0, 1, 4, 4, dtype=torch.uint8), torch.zeros(0).long(), "at least one image"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(3).long(), r"labels are \(2,\).*got \(3,\)"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2), "int64.*float32"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, -1]), "from 0 on, got -1"),
    ],
)
def test_records_refuse_what_are_no_labelled_images(images, labels, message):
    with pytest.raises(DatasetError, match=message):
        LabelledImages(images, labels)


def test_a_data_set_refuses_labels_and_shapes_that_do_not_fit():
    one = LabelledImages(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 2]))
    other = LabelledImages(torch.zeros(2, 1, 4, 5, dtype=torch.uint8), torch.tensor([0, 1]))
    with pytest.raises(DatasetError, match="0 to 1 for 2 classes, got a training label 2"):
        ImageDataset("toy", ("a", "b"), one, one)
    with pytest.raises(DatasetError, match="one shape"):
        ImageDataset("toy", ("a", "b", "c"), one, other)


@pytest.mark.parametrize("options", [{"train_fraction": 0.0}, {"train_fraction": 1.0}, {"seed": -1}])
def test_a_configuration_of_nonsense_is_refused(options):
    with pytest.raises(DatasetError, match="got"):
        DataConfig("digits", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_spec": InputSpec((3, 8, 8))}, r"are \(1, 8, 8\), the classifier takes \(3, 8, 8\)"),
        ({"n_classes": 100}, "has 10 classes, the classifier 100"),
    ],
)
def test_a_data_set_that_does_not_fit_the_classifier_is_refused(options, message):
    with pytest.raises(DatasetError, match=message):
        load_dataset(DataConfig("digits"), **options)


def test_a_folder_is_decoded_as_a_server_decodes(tree):
    dataset = load_folder(tree)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(dataset.test.images[3], write_picture(tree / "again.png", seed=121))


def test_a_folder_takes_jpeg_and_webp_of_any_size(tree):
    write_picture(tree / "train" / "cat" / "x.JPG", 7, size=(20, 11))
    write_picture(tree / "train" / "cat" / "y.webp", 8, size=(9, 9))
    (tree / "train" / "cat" / "notes.txt").write_text("no picture", encoding="utf-8")
    dataset = load_folder(tree)
    expected = decode_image((tree / "train" / "cat" / "x.JPG").read_bytes(), RGB)
    assert len(dataset.train) == 8
    assert torch.equal(dataset.train.images[3], expected)


def test_class_names_may_come_from_a_file(tree):
    (tree / "names.txt").write_text("Katze\n\nHund\n", encoding="utf-8")
    assert load_folder(tree, class_names=Path("names.txt")).class_names == ("Katze", "Hund")
    (tree / "names.txt").write_text("Katze\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"names\.txt has 1 class names, expected 2"):
        load_folder(tree, class_names=Path("names.txt"))
    with pytest.raises(DatasetError, match=r"absent\.txt"):
        load_folder(tree, class_names=Path("absent.txt"))


def test_a_class_without_images_is_named(tree):
    (tree / "train" / "eel").mkdir()
    (tree / "train" / "eel" / "eel.bmp").write_bytes(b"BM")
    with pytest.raises(DatasetError, match=r"1 of 3 have none: eel; add images, or set allow_missing_classes"):
        load_folder(tree)
    assert load_folder(tree, allow_missing_classes=True).class_names == ("cat", "dog", "eel")


def test_a_class_without_test_images_is_named(tree):
    for place in (tree / "test" / "dog").iterdir():
        place.unlink()
    with pytest.raises(DatasetError, match=r"every class needs test .* have none: dog"):
        load_folder(tree)


def test_a_class_that_is_only_tested_is_named(tree):
    write_picture(tree / "test" / "eel" / "0.png", 1)
    with pytest.raises(DatasetError, match=r"classes that .*train has not: eel"):
        load_folder(tree)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n truncated"])
def test_an_unreadable_file_is_named(tree, content):
    (tree / "train" / "dog" / "bad.png").write_bytes(content)
    with pytest.raises(DatasetError, match=r"dog/bad\.png cannot be read as an image"):
        load_folder(tree)


def test_one_picture_in_both_parts_is_found(tree):
    twin = (tree / "train" / "cat" / "0.png").read_bytes()
    (tree / "test" / "cat" / "twin.png").write_bytes(twin)
    with pytest.raises(DatasetError, match=r"test/cat/twin\.png is the same file as .*train/cat/0\.png"):
        load_folder(tree)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_missing_part_is_named(tree, part):
    (tree / part).rename(tree / "elsewhere")
    with pytest.raises(DatasetError, match=rf"no directory .*{part}; expected root/train/CLASS"):
        load_folder(tree)


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"no directory of images at .*absent; expected root/train/CLASS"):
        load_folder(tmp_path / "absent")
    with pytest.raises(DatasetError, match="needs `root`"):
        load_folder(None)
    with pytest.raises(DatasetError, match="input_spec"):
        load_dataset(DataConfig("folder", tmp_path))


def test_an_empty_directory_says_what_is_expected(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    with pytest.raises(DatasetError, match="no directory of a class"):
        load_folder(tmp_path)


def test_a_list_of_labels_may_show_some_of_the_classes(listed):
    dataset = load_folder(listed, n_classes=9, allow_missing_classes=True)
    assert len(dataset.class_names) == 9
    assert dataset.class_names[7] == "owl"
    assert dataset.class_names[3] == "class 3"
    assert sorted(dataset.train.labels.tolist()) == [2] * 4 + [7] * 4
    assert sorted(dataset.test.labels.tolist()) == [2, 7]


def test_a_list_of_labels_must_show_all_classes_unless_allowed(listed):
    with pytest.raises(DatasetError, match=r"7 of 9 have none: class 0, .*, …; add images, or set allow_missing"):
        load_folder(listed, n_classes=9)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("class_index", "label", "no column class_index"),
        ("3.png,2", "33.png,2", r"line 5: no file .*33\.png"),
        ("3.png,2", "3.png,two", "line 5: expected a file, a class index"),
        ("3.png,2", "3.png,-2", "line 5: expected a file, a class index"),
        ("3.png,2,hen", "3.png,2", "line 5: expected a file, a class index"),
        ("3.png,2,hen", "3.png,2,duck", "line 5: class 2 is named 'duck' here and 'hen' before"),
        ("3.png,2,hen", "2.png,2,hen", r"2\.png is the same file as .*2\.png"),
        ("9.png,7", "9.png,12", "12, expected 0 to 8 for 9 classes|named"),
        ("9.png,7,owl", "9.png,12,elk", "class_index 12, expected 0 to 8 for 9 classes"),
    ],
)
def test_a_wrong_line_of_the_list_is_named(listed, old, new, message):
    edit(listed / "labels.csv", old, new)
    with pytest.raises(DatasetError, match=message):
        load_folder(listed, n_classes=9, allow_missing_classes=True)


def test_a_list_that_is_missing_empty_or_no_text_is_named(listed):
    with pytest.raises(DatasetError, match=r"no list of labels at .*other\.csv"):
        load_folder(listed, labels=Path("other.csv"))
    (listed / "labels.csv").write_text("file,class_index,class_name\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="lists no files"):
        load_folder(listed)
    (listed / "labels.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match="not a readable CSV file in UTF-8"):
        load_folder(listed)


class Trap:
    """Makes a directory when it is unpickled."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return (type(self.place).mkdir, (self.place,))


@pytest.mark.parametrize(("name", "folder"), [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")])
def test_cifar_that_is_missing_says_where_it_is_expected(tmp_path, name, folder):
    with pytest.raises(DatasetError, match=rf"expected at {tmp_path / folder} .*set download to fetch it"):
        load_dataset(DataConfig(name, tmp_path))
    with pytest.raises(DatasetError, match="needs `root`"):
        load_dataset(DataConfig(name))


def test_cifar_that_was_tampered_with_is_never_unpickled(tmp_path):
    trap = tmp_path / "trap"
    (tmp_path / "cifar-10-batches-py").mkdir()
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch", "batches.meta"):
        (tmp_path / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(Trap(trap)))
    with pytest.raises(DatasetError, match="was expected at"):
        load_dataset(DataConfig("cifar10", tmp_path))
    assert not trap.exists()


@pytest.mark.skipif("MODEGUARD_DATA" not in os.environ, reason="MODEGUARD_DATA (with cifar-10-batches-py) is not set")
def test_cifar10_is_whole():
    """Counts of Krizhevsky 2009; the first test image is a cat."""
    dataset = load_dataset(DataConfig("cifar10", Path(os.environ["MODEGUARD_DATA"])), n_classes=10)
    assert torch.bincount(dataset.train.labels).tolist() == [5000] * 10
    assert torch.bincount(dataset.test.labels).tolist() == [1000] * 10
    assert dataset.class_names[int(dataset.test.labels[0])] == "cat"
    assert dataset.train.images.shape == (50000, 3, 32, 32)
