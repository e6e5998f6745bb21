"""The classes of a data set: their names from a file, and whether each of them has images."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from modeguard.offline.data.records import DataConfig, DatasetError

__all__ = ["check_classes_present", "read_class_names"]

_SHOWN = 5


def read_class_names(path: Path) -> tuple[str, ...]:
    """The non-empty lines of a text file.

    Raises:
        DatasetError: if there is no such text file, it has no names, or one comes twice.
    """
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"class names are one a line in a UTF-8 text file at {path}, but {error}") from error
    if not names:
        raise DatasetError(f"{path} has no class names, expected one a line")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DatasetError(
            f"{path} names {', '.join(repeated[:_SHOWN])} more than once, expected a name for each class"
        )
    return names


def check_classes_present(
    class_names: Sequence[str], labels: Tensor, config: DataConfig, *, part: str = "training"
) -> None:
    """Refuse labels (n,) among which a class never occurs, unless the configuration allows it.

    Raises:
        DatasetError: naming classes without images.
    """
    counts = torch.bincount(labels, minlength=len(class_names))
    missing = [class_names[k] for k in (counts == 0).nonzero().flatten().tolist()]
    if missing and not config.allow_missing_classes:
        shown = ", ".join(missing[:_SHOWN]) + (", …" if len(missing) > _SHOWN else "")
        raise DatasetError(
            f"every class needs {part} images, but {len(missing)} of {len(class_names)} have none: {shown}; add "
            "images, or set allow_missing_classes"
        )
