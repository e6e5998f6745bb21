"""Folders of images are decoded as a server decodes, and what is wrong with a file or a line is named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from modeguard.offline.data import DataConfig, DatasetError, ImageDataset, load_dataset
from modeguard.templates_store.images import InputSpec, decode_image

RGB = InputSpec((3, 4, 5))


def write_picture(path: Path, seed: int, size: tuple[int, int] = (5, 4)) -> Tensor:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return torch.from_numpy(pixels).permute(2, 0, 1)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """root/train and root/test with the classes cat and dog."""
    for part, n in (("train", 3), ("test", 2)):
        for k, name in enumerate(("cat", "dog")):
            for i in range(n):
                write_picture(tmp_path / part / name / f"{i}.png", seed=100 * k + 10 * n + i)
    return tmp_path


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """Ten pictures of classes 2 and 7 and a list of labels."""
    lines = ["file,class_index,class_name"]
    for i in range(10):
        write_picture(tmp_path / f"{i}.png", seed=i)
        lines.append(f"{i}.png,{2 if i < 5 else 7},{'hen' if i < 5 else 'owl'}")
    (tmp_path / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def load_folder(root: Path | None, n_classes: int | None = None, **options: Any) -> ImageDataset:
    return load_dataset(DataConfig("folder", root, **options), input_spec=RGB, n_classes=n_classes)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize("options", [{"train_fraction": 0.0}, {"train_fraction": 1.0}, {"seed": -1}])
def test_a_configuration_of_nonsense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match="got"):
        DataConfig("digits", **options)


def test_a_folder_is_decoded_as_a_server_decodes(tree: Path) -> None:
    dataset = load_folder(tree)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(dataset.test.images[3], write_picture(tree / "again.png", seed=121))


def test_a_folder_takes_jpeg_and_webp_of_any_size(tree: Path) -> None:
    write_picture(tree / "train" / "cat" / "x.JPG", 7, size=(20, 11))
    write_picture(tree / "train" / "cat" / "y.webp", 8, size=(9, 9))
    (tree / "train" / "cat" / "notes.txt").write_text("no picture", encoding="utf-8")
    dataset = load_folder(tree)
    expected = decode_image((tree / "train" / "cat" / "x.JPG").read_bytes(), RGB)
    assert len(dataset.train) == 8
    assert torch.equal(dataset.train.images[3], expected)


def test_class_names_may_come_from_a_file(tree: Path) -> None:
    (tree / "names.txt").write_text("Katze\n\nHund\n", encoding="utf-8")
    assert load_folder(tree, class_names=Path("names.txt")).class_names == ("Katze", "Hund")
    (tree / "names.txt").write_text("Katze\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"names\.txt has 1 class names, expected 2"):
        load_folder(tree, class_names=Path("names.txt"))
    with pytest.raises(DatasetError, match=r"absent\.txt"):
        load_folder(tree, class_names=Path("absent.txt"))


def test_a_class_without_images_is_named(tree: Path) -> None:
    (tree / "train" / "eel").mkdir()
    (tree / "train" / "eel" / "eel.bmp").write_bytes(b"BM")
    with pytest.raises(DatasetError, match=r"1 of 3 have none: eel; add images, or set allow_missing_classes"):
        load_folder(tree)
    assert load_folder(tree, allow_missing_classes=True).class_names == ("cat", "dog", "eel")


def test_a_class_without_test_images_is_named(tree: Path) -> None:
    for place in (tree / "test" / "dog").iterdir():
        place.unlink()
    with pytest.raises(DatasetError, match=r"every class needs test .* have none: dog"):
        load_folder(tree)


def test_a_class_that_is_only_tested_is_named(tree: Path) -> None:
    write_picture(tree / "test" / "eel" / "0.png", 1)
    with pytest.raises(DatasetError, match=r"classes that .*train has not: eel"):
        load_folder(tree)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n truncated"])
def test_an_unreadable_file_is_named(tree: Path, content: bytes) -> None:
    (tree / "train" / "dog" / "bad.png").write_bytes(content)
    with pytest.raises(DatasetError, match=r"dog/bad\.png cannot be read as an image"):
        load_folder(tree)


def test_one_picture_in_both_parts_is_found(tree: Path) -> None:
    twin = (tree / "train" / "cat" / "0.png").read_bytes()
    (tree / "test" / "cat" / "twin.png").write_bytes(twin)
    with pytest.raises(DatasetError, match=r"test/cat/twin\.png is the same file as .*train/cat/0\.png"):
        load_folder(tree)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_missing_part_is_named(tree: Path, part: str) -> None:
    (tree / part).rename(tree / "elsewhere")
    with pytest.raises(DatasetError, match=rf"no directory .*{part}; expected root/train/CLASS"):
        load_folder(tree)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no directory of images at .*absent; expected root/train/CLASS"):
        load_folder(tmp_path / "absent")
    with pytest.raises(DatasetError, match="needs `root`"):
        load_folder(None)
    with pytest.raises(DatasetError, match="input_spec"):
        load_dataset(DataConfig("folder", tmp_path))


def test_an_empty_directory_says_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    with pytest.raises(DatasetError, match="no directory of a class"):
        load_folder(tmp_path)


def test_a_list_of_labels_may_show_some_of_the_classes(listed: Path) -> None:
    dataset = load_folder(listed, n_classes=9, allow_missing_classes=True)
    assert len(dataset.class_names) == 9
    assert dataset.class_names[7] == "owl"
    assert dataset.class_names[3] == "class 3"
    assert sorted(dataset.train.labels.tolist()) == [2] * 4 + [7] * 4
    assert sorted(dataset.test.labels.tolist()) == [2, 7]


def test_a_list_of_labels_must_show_all_classes_unless_allowed(listed: Path) -> None:
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
def test_a_wrong_line_of_the_list_is_named(listed: Path, old: str, new: str, message: str) -> None:
    edit(listed / "labels.csv", old, new)
    with pytest.raises(DatasetError, match=message):
        load_folder(listed, n_classes=9, allow_missing_classes=True)


def test_a_list_that_is_missing_empty_or_no_text_is_named(listed: Path) -> None:
    with pytest.raises(DatasetError, match=r"no list of labels at .*other\.csv"):
        load_folder(listed, labels=Path("other.csv"))
    (listed / "labels.csv").write_text("file,class_index,class_name\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="lists no files"):
        load_folder(listed)
    (listed / "labels.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match="not a readable CSV file in UTF-8"):
        load_folder(listed)
