"""One file that a training can go on from: safetensors with its description as JSON, no pickle.

A checkpoint is written beside its place and renamed, so an interrupted write leaves the last whole one.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from modeguard.detector import ModeguardError
from modeguard.templates_store.files import write_file_atomically

__all__ = ["Checkpoint", "TrainingError", "read_checkpoint", "write_checkpoint"]

_KEY, _FORMAT = "modeguard_training", 2
_NETWORK, _MOMENTUM, _AVERAGE, _LAST_LOSSES = "network.", "momentum.", "average.", "last_losses"


class TrainingError(ModeguardError):
    """A training that cannot begin, go on or end well."""


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A training after some whole epochs.

    Attributes:
        belongs_to: what the training is of; JSON. A training goes on only from its own checkpoint.
        history: one JSON object an epoch, oldest first.
        network: weights and buffers by name, float32 and integers.
        momentum: the optimiser's buffers by the names of the parameters.
        last_losses: (n,) float32, of each training image when it was last met.
        average: mean of the weights after each of the averaged epochs so far, by the names of the parameters.
    """

    belongs_to: dict[str, Any]
    history: list[dict[str, Any]]
    network: dict[str, Tensor]
    momentum: dict[str, Tensor]
    last_losses: Tensor
    average: dict[str, Tensor]


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Put a checkpoint at `path`, complete or not at all.

    Raises:
        TrainingError: if the file system refuses, for example because the disk is full.
    """
    tensors = {_NETWORK + name: value for name, value in checkpoint.network.items()}
    tensors |= {_MOMENTUM + name: value for name, value in checkpoint.momentum.items()}
    tensors |= {_AVERAGE + name: value for name, value in checkpoint.average.items()}
    tensors[_LAST_LOSSES] = checkpoint.last_losses
    description = {"format": _FORMAT, "belongs_to": checkpoint.belongs_to, "history": checkpoint.history}
    content = to_safetensors(
        {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()},
        {_KEY: json.dumps(description)},
    )
    try:
        write_file_atomically(path, content)
    except OSError as error:
        raise TrainingError(
            f"the checkpoint {path} cannot be written ({error}); the last whole one is kept: make room or choose "
            "another place, and start again to go on from it"
        ) from error


def read_checkpoint(path: Path, belongs_to: dict[str, Any]) -> Checkpoint | None:
    """The checkpoint at `path`; None if there is no file.

    Raises:
        TrainingError: if it cannot be read, or belongs to another training, naming what differs.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        last_losses = tensors.get(_LAST_LOSSES)
        version, found, history = (description[key] for key in ("format", "belongs_to", "history"))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"{path} is no checkpoint of a training ({error}); delete it to start from the beginning"
        ) from error
    if version != _FORMAT:
        raise TrainingError(f"{path} has checkpoint format {version}, expected {_FORMAT}; delete it to start anew")
    if last_losses is None:
        raise TrainingError(f"{path} has no losses of the training images; delete it to start from the beginning")
    if differences := _differences(found, belongs_to):
        raise TrainingError(
            f"{path} belongs to another training ({'; '.join(differences[:4])}); delete it, choose another path, or "
            "train as it was begun"
        )
    network, momentum, average = (_under(prefix, tensors) for prefix in (_NETWORK, _MOMENTUM, _AVERAGE))
    return Checkpoint(found, history, network, momentum, last_losses, average)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _differences(found: object, wanted: object, place: str = "") -> list[str]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = sorted({*found, *wanted})
        return [each for key in keys for each in _differences(found.get(key), wanted.get(key), f"{place} {key}")]
    return [] if found == wanted else [f"{place.strip()}: {found} there, {wanted} now"]
