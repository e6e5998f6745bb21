"""Class names from a text file."""

from pathlib import Path

import pytest

from modeguard.offline.data import DatasetError
from modeguard.offline.data.classes import read_class_names


def test_names_are_lines_and_a_byte_order_mark_is_no_part_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeffZero\n\n one \r\n".encode())
    assert read_class_names(path) == ("Zero", "one")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\nb\na\n", "names a more than once, expected a name for each class"),
        (b"\n \n", "has no class names"),
        (b"\xff\xfe", "one a line in a UTF-8 text file"),
    ],
)
def test_names_that_are_none_or_come_twice_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read_class_names(path)
