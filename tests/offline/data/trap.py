"""A pickle that shows whether it was read."""

from collections.abc import Callable
from pathlib import Path


class Trap:
    """Makes a directory when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return (type(self.place).mkdir, (self.place,))
