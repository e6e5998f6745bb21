"""From the name of an architecture to a network with random weights.

To add an architecture: write its module in `networks.py` and add one line to `ARCHITECTURES`.
"""

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Collection
from typing import Any

from torch import nn

from modeguard.templates_store.classifiers.networks import CifarResNet, CifarVgg, DigitsCnn
from modeguard.templates_store.classifiers.spec import EXPORT, ClassifierError, ClassifierSpec

__all__ = ["ARCHITECTURES", "LIBRARIES", "build_network"]

ARCHITECTURES: dict[str, Callable[[ClassifierSpec], nn.Module]] = {
    "digits-cnn": lambda spec: DigitsCnn(_at_least(spec, 2, 2), spec.n_classes),
    "cifar-resnet20": lambda spec: CifarResNet(spec.input_shape[0], spec.n_classes),
    "cifar-vgg16": lambda spec: CifarVgg(_exactly(spec, 32, 32)[0], spec.n_classes),
}


def build_network(spec: ClassifierSpec, *, allowed_factories: Collection[str] = ()) -> nn.Module:
    """The network that a spec names, with random weights, in training mode.

    Args:
        spec: any but "torch.export", whose program is its own network.
        allowed_factories: the "package.module:factory" names that may be imported and called.

    Raises:
        ClassifierError: if nothing has that name, or a factory is not allowed or returns no network.
    """
    if spec.architecture in ARCHITECTURES:
        return ARCHITECTURES[spec.architecture](spec)
    source, colon, name = spec.architecture.partition(":")
    if colon and source in LIBRARIES:
        return LIBRARIES[source](name, spec)
    if colon and source and name:
        return _from_factory(spec, allowed_factories)
    raise ClassifierError(
        f"architecture {spec.architecture!r} is unknown; known are {', '.join(ARCHITECTURES)}, "
        f"torchvision:NAME, timm:NAME, package.module:factory and {EXPORT}"
    )


def _from_torchvision(name: str, spec: ClassifierSpec) -> nn.Module:
    models: Any = importlib.import_module("torchvision.models")
    known: list[str] = models.list_models(module=models)
    if name not in known:
        raise ClassifierError(
            f"torchvision has no classifier {name!r}; it has {', '.join(_nearest(name, known))} and others "
            "(torchvision.models.list_models lists them)"
        )
    _three_channels(spec)
    return _as_network(models.get_model(name, weights=None, num_classes=spec.n_classes), spec)


def _from_timm(name: str, spec: ClassifierSpec) -> nn.Module:
    if importlib.util.find_spec("timm") is None:
        raise ClassifierError(
            f"architecture {spec.architecture!r} needs the package timm, which is not installed: "
            "pip install 'modeguard[timm]'"
        )
    timm: Any = importlib.import_module("timm")
    known: list[str] = timm.list_models()
    if name not in known:
        raise ClassifierError(f"timm has no model {name!r}; it has {', '.join(_nearest(name, known))} and others")
    network = timm.create_model(name, pretrained=False, num_classes=spec.n_classes, in_chans=spec.input_shape[0])
    return _as_network(network, spec)


LIBRARIES: dict[str, Callable[[str, ClassifierSpec], nn.Module]] = {
    "torchvision": _from_torchvision,
    "timm": _from_timm,
}


def _from_factory(spec: ClassifierSpec, allowed_factories: Collection[str]) -> nn.Module:
    if spec.architecture not in allowed_factories:
        raise ClassifierError(
            f"architecture {spec.architecture!r} would import and call code that was not allowed; allowed are "
            f"{sorted(allowed_factories)}. Name it among the allowed factories if you trust that code"
        )
    module_name, _, factory_name = spec.architecture.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), factory_name)
    except (ImportError, AttributeError) as error:
        raise ClassifierError(
            f"{spec.architecture!r} was expected to be package.module:factory, but {error}; is the package "
            "installed, or its directory on PYTHONPATH?"
        ) from error
    if not callable(factory):
        raise ClassifierError(f"{spec.architecture!r} is {type(factory).__name__}, expected a callable")
    accepts = "n_classes" in inspect.signature(factory).parameters
    return _as_network(factory(n_classes=spec.n_classes) if accepts else factory(), spec)


def _as_network(network: object, spec: ClassifierSpec) -> nn.Module:
    if not isinstance(network, nn.Module):
        raise ClassifierError(f"{spec.architecture!r} gave {type(network).__name__}, expected a torch.nn.Module")
    return network


def _nearest(name: str, known: list[str]) -> list[str]:
    """Names that begin as the unknown one does, or any: an error message is no place for all of them."""
    alike = [candidate for candidate in known if candidate[:4] == name[:4]]
    return (alike or known)[:8]


def _three_channels(spec: ClassifierSpec) -> None:
    if spec.input_shape[0] != 3:
        raise ClassifierError(f"{spec.architecture!r} takes 3 channels, got input_shape {spec.input_shape}")


def _exactly(spec: ClassifierSpec, height: int, width: int) -> tuple[int, int, int]:
    if spec.input_shape[1:] != (height, width):
        raise ClassifierError(
            f"{spec.architecture!r} takes images of {height}×{width} pixels, got input_shape {spec.input_shape}"
        )
    return spec.input_shape


def _at_least(spec: ClassifierSpec, height: int, width: int) -> tuple[int, int, int]:
    if spec.input_shape[1] < height or spec.input_shape[2] < width:
        raise ClassifierError(
            f"{spec.architecture!r} takes images of at least {height}×{width} pixels, "
            f"got input_shape {spec.input_shape}"
        )
    return spec.input_shape
