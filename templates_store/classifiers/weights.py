"""Weights of a network from a safetensors file: exactly its own, all finite; anything else is named."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from modeguard.templates_store.classifiers.errors import ClassifierError
from modeguard.templates_store.files import TensorFileError, tensors_of

__all__ = ["check_weights", "load_weights", "read_weights"]

_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_SHOWN_KEYS = 3
_COUNTER = "num_batches_tracked"  # a counter of training; many files leave it out


def read_weights(content: bytes, *, origin: Path) -> dict[str, Tensor]:
    """Weights by name, whatever network they are of.

    Args:
        content: bytes of the file.
        origin: where they came from, for errors.

    Raises:
        ClassifierError: if it is no safetensors file.
    """
    try:
        return tensors_of(content)
    except TensorFileError as error:
        raise ClassifierError(
            f"{origin} is not a readable safetensors file ({error}); convert other formats with "
            "safetensors.torch.save_file(model.state_dict(), path)"
        ) from error


def check_weights(network: nn.Module, stored: Mapping[str, Tensor], *, origin: Path) -> None:
    """Refuse weights of another network; nothing but names, shapes and types is looked at.

    Args:
        network: any, on any device.
        stored: weights by name.
        origin: where they came from, for errors.

    Raises:
        ClassifierError: naming what is missing, unexpected or of another shape or kind.
    """
    wanted = network.state_dict()
    counters = {name: wanted[name] for name in wanted if name.endswith(_COUNTER)}
    _check_keys(wanted, {**counters, **stored}, origin)


def load_weights(network: nn.Module, stored: Mapping[str, Tensor], *, origin: Path) -> None:
    """Give a network its weights; narrower floating-point types are cast up.

    Args:
        network: any, its weights are overwritten.
        stored: weights by name.
        origin: where they came from, for errors.

    Raises:
        ClassifierError: if they are of another network, or hold values that are not finite.
    """
    check_weights(network, stored, origin=origin)
    for name, value in stored.items():
        if not bool(torch.isfinite(value).all()):
            raise ClassifierError(f"{origin}: {name} holds values that are not finite; the file cannot be used")
    wanted = network.state_dict()
    network.load_state_dict({name: stored.get(name, own).to(own.dtype) for name, own in wanted.items()})


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
