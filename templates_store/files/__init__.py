"""Writing files and directories whole or not at all, and reading tensors from bytes that may be anybody's.

What lives here: what every room that stores something needs, without knowing what is stored. What must not: the names,
formats and meaning of what is stored (bundles, checkpoints, reports), which belong to the rooms that store it.
"""

from modeguard.templates_store.files.atomic import (
    sweep_leftovers,
    write_directory_atomically,
    write_file_atomically,
)
from modeguard.templates_store.files.tensor_files import TensorFileError, tensors_of

__all__ = [
    "TensorFileError",
    "sweep_leftovers",
    "tensors_of",
    "write_directory_atomically",
    "write_file_atomically",
]
