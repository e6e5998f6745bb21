"""Image files in directories as a data set: decoded exactly as a server decodes what it is sent.

Two layouts:

* `root/train/CLASS/*` and `root/test/CLASS/*`; the classes are the names of the directories, in sorted order;
* one directory with a list of labels, CSV with the columns file, class_index and class_name, split at random.
"""

import csv
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from modeguard.offline.data.classes import check_classes_present, read_class_names
from modeguard.offline.data.records import DataConfig, DatasetError, ImageDataset, LabelledImages
from modeguard.offline.data.splitting import split_rows
from modeguard.templates_store.images import InputSpec, InvalidImage, decode_image

__all__ = ["load_folder"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
_COLUMNS = ("file", "class_index", "class_name")
_LAYOUTS = "root/train/CLASS/*.png and root/test/CLASS/*.png, or files and labels.csv (file,class_index,class_name)"


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    label: int


def load_folder(config: DataConfig, input_spec: InputSpec | None, n_classes: int | None) -> ImageDataset:
    """Read a folder of images in either layout.

    Args:
        config: `root`, and for a list of labels `labels`, `train_fraction` and `seed`.
        input_spec: what the classifier takes; every image is made into that.
        n_classes: of the classifier, where a list of labels names only some of its classes.

    Raises:
        DatasetError: naming the directory, file or line that is missing or wrong.
    """
    if input_spec is None:
        raise DatasetError("a folder of images is read for a classifier: pass the input_spec of what it takes")
    root = config.need_root()
    if not root.is_dir():
        raise DatasetError(f"no directory of images at {root}; expected {_LAYOUTS}")
    labels = root / (config.labels or "labels.csv")
    if labels.is_file():
        return _load_listed(config, root, labels, input_spec, n_classes)
    if config.labels is not None:
        raise DatasetError(f"no list of labels at {labels}; expected CSV with the columns {', '.join(_COLUMNS)}")
    return _load_directories(config, root, input_spec)


def _load_directories(config: DataConfig, root: Path, input_spec: InputSpec) -> ImageDataset:
    parts = {part: root / part for part in ("train", "test")}
    if absent := [str(place) for place in parts.values() if not place.is_dir()]:
        raise DatasetError(f"no directory {' and no '.join(absent)}; expected {_LAYOUTS}")
    names = tuple(sorted(place.name for place in parts["train"].iterdir() if _is_class(place)))
    if not names:
        raise DatasetError(f"{parts['train']} has no directory of a class; expected {_LAYOUTS}")
    files: dict[str, list[_File]] = {}
    for part, directory in parts.items():
        unknown = sorted(place.name for place in directory.iterdir() if _is_class(place) and place.name not in names)
        if unknown:
            raise DatasetError(f"{directory} has classes that {parts['train']} has not: {', '.join(unknown[:5])}")
        files[part] = [_File(path, k) for k, name in enumerate(names) for path in _image_files(directory / name)]
        labels = torch.tensor([file.label for file in files[part]], dtype=torch.int64)
        check_classes_present(names, labels, config, part=f"{part} ({', '.join(sorted(SUFFIXES))} in {directory})")
        if not files[part]:
            raise DatasetError(f"{directory} has no images; expected {_LAYOUTS}")
    _refuse_duplicates(files["train"] + files["test"])
    train, test = (_decode(files[part], input_spec) for part in parts)
    return ImageDataset(root.name, _renamed(names, config, root), train, test)


def _load_listed(
    config: DataConfig, root: Path, labels: Path, input_spec: InputSpec, n_classes: int | None
) -> ImageDataset:
    files, listed = _read_list(labels, root)
    n_classes = n_classes or max(listed) + 1
    if (largest := max(listed)) >= n_classes:
        raise DatasetError(f"{labels} has class_index {largest}, expected 0 to {n_classes - 1} for {n_classes} classes")
    names = _renamed(tuple(listed.get(k, f"class {k}") for k in range(n_classes)), config, root)
    _refuse_duplicates(files)
    every = torch.tensor([file.label for file in files])
    check_classes_present(names, every, config, part=str(labels))
    train_rows, test_rows = split_rows(every, config.train_fraction, config.seed)
    images = _decode(files, input_spec)
    return ImageDataset(root.name, names, images.pick(train_rows), images.pick(test_rows))


def _read_list(path: Path, root: Path) -> tuple[list[_File], dict[int, str]]:
    """The files of a list, and the names of the classes that it has."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if missing := [column for column in _COLUMNS if column not in (reader.fieldnames or ())]:
                raise DatasetError(f"{path} has no column {', '.join(missing)}; expected {','.join(_COLUMNS)}")
            rows = list(enumerate(reader, start=2))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is not a readable CSV file in UTF-8: {error}") from error
    files: list[_File] = []
    names: dict[int, str] = {}
    for line, row in rows:
        name, index, class_name = (row[column] for column in _COLUMNS)
        if not name or not class_name or not (index or "").isdecimal():
            raise DatasetError(
                f"{path} line {line}: expected a file, a class index from 0 on and a class name, got {row}"
            )
        if names.setdefault(int(index), class_name) != class_name:
            raise DatasetError(
                f"{path} line {line}: class {index} is named {class_name!r} here and {names[int(index)]!r} before"
            )
        if not (root / name).is_file():
            raise DatasetError(f"{path} line {line}: no file {root / name}")
        files.append(_File(root / name, int(index)))
    if not files:
        raise DatasetError(f"{path} lists no files; expected a line {','.join(_COLUMNS)} for each image")
    return files, names


def _renamed(names: tuple[str, ...], config: DataConfig, root: Path) -> tuple[str, ...]:
    if config.class_names is None:
        return names
    renamed = read_class_names(root / config.class_names)
    if len(renamed) != len(names):
        raise DatasetError(
            f"{root / config.class_names} has {len(renamed)} class names, expected {len(names)}, one a class"
        )
    return renamed


def _is_class(place: Path) -> bool:
    return place.is_dir() and not place.name.startswith(".")


def _image_files(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    return sorted(
        path
        for path in directory.iterdir()
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )


def _refuse_duplicates(files: Sequence[_File]) -> None:
    """One picture in both parts would be tested on what was learnt from; under two classes it contradicts itself."""
    seen: dict[bytes, Path] = {}
    for file in files:
        with _naming(file.path), file.path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").digest()
        if digest in seen:
            raise DatasetError(f"{file.path} is the same file as {seen[digest]}; remove one of them")
        seen[digest] = file.path


def _decode(files: Sequence[_File], input_spec: InputSpec) -> LabelledImages:
    def decoded(file: _File) -> torch.Tensor:
        with _naming(file.path):
            return decode_image(file.path.read_bytes(), input_spec)

    with ThreadPoolExecutor() as pool:  # Pillow's decoders let go of the interpreter lock
        images = torch.stack(list(pool.map(decoded, files)))
    return LabelledImages(images, torch.tensor([file.label for file in files], dtype=torch.int64))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn what is wrong with a file into an error that names it."""
    try:
        yield
    except (InvalidImage, OSError) as error:
        raise DatasetError(f"{path} cannot be read as an image: {error}") from error
