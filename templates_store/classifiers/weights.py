"""Weights of a network from a safetensors file: exactly its own, all finite; anything else is named."""

from pathlib import Path

import torch
from torch import Tensor, nn

from modeguard.templates_store.classifiers.errors import ClassifierError
from modeguard.templates_store.files import TensorFileError, tensors_of

__all__ = ["load_weights"]

_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_SHOWN_KEYS = 3


def load_weights(network: nn.Module, content: bytes, *, origin: Path) -> None:
    """Give a network its weights; narrower floating-point types are cast up.

    Args:
        network: any, its weights are overwritten.
        content: bytes of the file.
        origin: where they came from, for errors.

    Raises:
        ClassifierError: if it is no safetensors file, or holds other weights or values that are not finite.
    """
    try:
        stored = tensors_of(content)
    except TensorFileError as error:
        raise ClassifierError(
            f"{origin} is not a readable safetensors file ({error}); convert other formats with "
            "safetensors.torch.save_file(model.state_dict(), path)"
        ) from error
    wanted = network.state_dict()
    for name in wanted:
        if name.endswith("num_batches_tracked"):  # a counter of training; many files leave it out
            stored.setdefault(name, wanted[name])
    _check_keys(wanted, stored, origin)
    for name, value in stored.items():
        if not bool(torch.isfinite(value).all()):
            raise ClassifierError(f"{origin}: {name} holds values that are not finite; the file cannot be used")
    network.load_state_dict({name: value.to(wanted[name].dtype) for name, value in stored.items()})


def _check_keys(wanted: dict[str, Tensor], stored: dict[str, Tensor], origin: Path) -> None:
    faults = {
        "missing": sorted(set(wanted) - set(stored)),
        "unexpected": sorted(set(stored) - set(wanted)),
        "of another shape": [
            f"{name} {tuple(stored[name].shape)} instead of {tuple(wanted[name].shape)}"
            for name in sorted(set(wanted) & set(stored))
            if stored[name].shape != wanted[name].shape
        ],
        "of another kind": [
            f"{name} {stored[name].dtype} instead of {wanted[name].dtype}"
            for name in sorted(set(wanted) & set(stored))
            if (stored[name].dtype in _FLOATS) != wanted[name].is_floating_point()
        ],
    }
    if any(faults.values()):
        listed = "; ".join(
            f"{len(names)} {fault}: {', '.join(names[:_SHOWN_KEYS])}{', …' if len(names) > _SHOWN_KEYS else ''}"
            for fault, names in faults.items()
            if names
        )
        raise ClassifierError(f"{origin} holds the weights of another architecture or number of classes: {listed}")
