"""Tensors from the bytes of a safetensors file: shapes and numbers only, no pickle and no code."""

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

__all__ = ["TensorFileError", "tensors_of"]


class TensorFileError(ValueError):
    """Bytes that are not a safetensors file, or that hold types which torch does not have."""


def tensors_of(content: bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, on the CPU.

    Args:
        content: the whole file.

    Raises:
        TensorFileError: says what is wrong with the bytes.
    """
    try:
        return safetensors.torch.load(content)  # not torch.load: the format holds shapes and numbers only
    except (SafetensorError, ValueError) as error:
        raise TensorFileError(str(error)) from error
    except KeyError as error:  # safetensors' own table of types
        raise TensorFileError(f"tensors of type {error.args[0]} are not known here") from error
