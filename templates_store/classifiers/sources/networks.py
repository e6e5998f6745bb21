"""Networks that are built by name and get their weights from a safetensors file. They alone can be trained."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import save as to_safetensors
from torch import nn

from modeguard.templates_store.classifiers.compute import resolve_dtype
from modeguard.templates_store.classifiers.errors import ClassifierError
from modeguard.templates_store.classifiers.network_classifier import NetworkClassifier
from modeguard.templates_store.classifiers.spec import ClassifierSpec
from modeguard.templates_store.classifiers.trust import Trust
from modeguard.templates_store.classifiers.weights import check_weights, load_weights, read_weights

__all__ = ["NetworkSource"]


@dataclass(frozen=True, slots=True)
class NetworkSource:
    """A `Source` of networks.

    Attributes:
        make: (name, spec, trust) -> a network with random weights.
        named: see `Source`.
        memory_format: the layout of images that these networks take best.
        is_sketched: whether a network is first made without memory, to see whether the file can be its weights. Whoever
            makes up a number of classes cannot have a network made then that fills the machine.
    """

    make: Callable[[str, ClassifierSpec, Trust], object]
    named: str = "NAME"
    memory_format: torch.memory_format = torch.contiguous_format
    is_sketched: bool = True

    suffix: ClassVar[str] = ".safetensors"

    def build(self, name: str, spec: ClassifierSpec, trust: Trust) -> NetworkClassifier:
        """A classifier with random weights from torch's global generator, in training mode.

        Raises:
            ClassifierError: if nothing has that name, it is not trusted, or it is no network.
        """
        network = self.make(name, spec, trust)
        if not isinstance(network, nn.Module):
            raise ClassifierError(f"{spec.architecture!r} gave {type(network).__name__}, expected a torch.nn.Module")
        return NetworkClassifier(network, spec, memory_format=self.memory_format)

    def open(
        self,
        name: str,
        spec: ClassifierSpec,
        content: bytes,
        *,
        origin: Path,
        dtype: str,
        device: torch.device,
        trust: Trust,
    ) -> NetworkClassifier:
        """The network with its weights, see `Source`."""
        stored = read_weights(content, origin=origin)
        with torch.random.fork_rng(devices=[]):  # the random weights are replaced: leave no trace of drawing them
            sketch = self._sketch(name, spec, trust)
            if sketch is not None:
                check_weights(sketch, stored, origin=origin)
            classifier = self.build(name, spec, trust)
        load_weights(classifier.network, stored, origin=origin)
        classifier.use_dtype(resolve_dtype(dtype, device))
        return classifier.to(device).eval().requires_grad_(requires_grad=False)

    def _sketch(self, name: str, spec: ClassifierSpec, trust: Trust) -> nn.Module | None:
        """The network without memory for its weights; None where that is not to be had."""
        if not self.is_sketched:
            return None
        try:
            with torch.device("meta"):
                network = self.make(name, spec, trust)
        except ClassifierError:
            raise
        except Exception:  # noqa: BLE001 - a foreign network that computes while it is made cannot be sketched
            return None
        return network if isinstance(network, nn.Module) else None

    def save(self, classifier: NetworkClassifier) -> bytes:
        """Its weights in the precision that they were loaded with."""
        return to_safetensors(classifier.weights())
