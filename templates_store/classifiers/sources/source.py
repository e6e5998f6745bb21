"""What a source of classifiers is."""

from pathlib import Path
from typing import Protocol, TypeVar

import torch

from modeguard.detector import Classifier
from modeguard.templates_store.classifiers.spec import ClassifierSpec
from modeguard.templates_store.classifiers.trust import Trust

__all__ = ["Source", "StoredClassifier"]


class StoredClassifier(Classifier, Protocol):
    """A classifier that a bundle can hold.

    Attributes:
        spec: what names it.
        compute_dtype: what it computes in here, float32 or bfloat16; a bundle keeps what it was calibrated in.
    """

    spec: ClassifierSpec
    compute_dtype: torch.dtype


Stored = TypeVar("Stored", bound=StoredClassifier)


class Source(Protocol[Stored]):
    """Where classifiers of one kind come from, and how they go into a file and out of it again."""

    @property
    def named(self) -> str:
        """What stands behind "kind:" in a recipe, in capitals ("NAME"); empty where the kind says it all."""
        ...

    @property
    def suffix(self) -> str:
        """Ending of its files, with the dot."""
        ...

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
    ) -> Stored:
        """The classifier that a file holds, ready to be asked: frozen, in evaluation mode, on the device.

        Args:
            name: what stands behind "kind:" in the spec's architecture.
            spec: the classifier's; it must answer as many logits for such images.
            content: bytes of the file, verified already: they are used, not the file.
            origin: where they came from, for errors.
            dtype: "float32", "bfloat16" or "auto", as somebody asked for it.
            device: where it shall run.
            trust: asked before anything runs that came with the file or the name.

        Raises:
            ClassifierError: whatever is wrong with it, naming `origin`.
        """
        ...

    def save(self, classifier: Stored) -> bytes:
        """What `open` reads, the same whatever the classifier computes in and on."""
        ...
