"""Networks that a function of the user's own makes; it is imported and called only where it is trusted."""

import importlib
import inspect

from modeguard.templates_store.classifiers.errors import ClassifierError
from modeguard.templates_store.classifiers.sources.networks import NetworkSource
from modeguard.templates_store.classifiers.spec import ClassifierSpec
from modeguard.templates_store.classifiers.trust import Trust

__all__ = ["factory"]


def _make(name: str, spec: ClassifierSpec, trust: Trust) -> object:
    trust.check_factory(name)
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise ClassifierError(
            f"{name!r} was expected to be package.module:factory, but {error}; is the package installed, or its "
            "directory on PYTHONPATH?"
        ) from error
    if not callable(function):
        raise ClassifierError(f"{name!r} is {type(function).__name__}, expected a callable")
    accepts = "n_classes" in inspect.signature(function).parameters
    return function(n_classes=spec.n_classes) if accepts else function()


factory = NetworkSource(_make, is_sketched=False)  # it is called once
