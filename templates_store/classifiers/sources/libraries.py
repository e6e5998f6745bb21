"""Networks of torchvision and timm, by their names there. Nothing is downloaded."""

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

import torch

from modeguard.templates_store.classifiers.errors import ClassifierError, nearest_names
from modeguard.templates_store.classifiers.sources.networks import NetworkSource
from modeguard.templates_store.classifiers.spec import ClassifierSpec
from modeguard.templates_store.classifiers.trust import Trust

__all__ = ["timm", "torchvision"]

_N_NEAREST = 3


def _make_torchvision(name: str, spec: ClassifierSpec, _: Trust) -> object:
    models: Any = importlib.import_module("torchvision.models")
    # of this module only: the others' models segment or detect, and would fetch weights of their backbone
    _check_known(name, models.list_models(module=models), "torchvision", "torchvision.models.list_models()")
    if spec.input_shape[0] != 3:
        raise ClassifierError(f"{spec.architecture!r} takes 3 channels, got input_shape {spec.input_shape}")
    return models.get_model(name, weights=None, num_classes=spec.n_classes)


def _make_timm(name: str, spec: ClassifierSpec, _: Trust) -> object:
    if importlib.util.find_spec("timm") is None:
        raise ClassifierError(
            f"architecture {spec.architecture!r} needs the package timm, which is not installed: "
            "pip install 'modeguard[timm]'"
        )
    library: Any = importlib.import_module("timm")
    _check_known(name, library.list_models(), "timm", "timm.list_models()")
    return library.create_model(name, pretrained=False, num_classes=spec.n_classes, in_chans=spec.input_shape[0])


torchvision = NetworkSource(_make_torchvision, memory_format=torch.channels_last)
timm = NetworkSource(_make_timm, memory_format=torch.channels_last)


def _check_known(name: str, known: Sequence[str], library: str, listing: str) -> None:
    if name not in known:
        # hundreds of names: an error message is no place for all of them
        some = nearest_names(name, known, n=_N_NEAREST)
        raise ClassifierError(f"{library} has no classifier {name!r}{some}; {listing} lists them all")
