"""Building, loading and saving classifiers of every kind, each by the source that its architecture names."""

from pathlib import Path
from typing import Any

import torch

from modeguard.templates_store.classifiers.architecture import parse_architecture
from modeguard.templates_store.classifiers.errors import ClassifierError
from modeguard.templates_store.classifiers.network_classifier import NetworkClassifier
from modeguard.templates_store.classifiers.sources import SOURCES, NetworkSource, Source, StoredClassifier
from modeguard.templates_store.classifiers.spec import ClassifierSpec
from modeguard.templates_store.classifiers.trust import TRUST_NOTHING, Trust
from modeguard.templates_store.files import write_file_atomically

__all__ = ["build_classifier", "classifier_of", "file_suffix", "load_classifier", "save_weights"]


def build_classifier(spec: ClassifierSpec, *, trust: Trust = TRUST_NOTHING) -> NetworkClassifier:
    """A classifier with random weights (from torch's global generator), in training mode, to be trained.

    Args:
        spec: what to build.
        trust: which factories may be called.

    Raises:
        ClassifierError: if the architecture is unknown, not trusted, takes other images, or is finished already, as
            "torch.export" is.
    """
    source, name = _source_of(spec)
    if not isinstance(source, NetworkSource):
        raise ClassifierError(
            f"{spec.architecture!r} is a finished program: it is loaded from a {source.suffix} file, never built"
        )
    return source.build(name, spec, trust)


def load_classifier(
    spec: ClassifierSpec,
    path: Path,
    *,
    dtype: str = "auto",
    device: str | torch.device = "cpu",
    trust: Trust = TRUST_NOTHING,
) -> StoredClassifier:
    """A classifier from its file, in evaluation mode, its parameters frozen.

    Args:
        spec: what the file belongs to.
        path: safetensors (float32, or float16 or bfloat16, which are cast up), a `torch.export` program, or whatever
            the architecture's source reads.
        dtype: "float32", "bfloat16", or "auto", which asks `resolve_dtype`.
        device: where it shall run.
        trust: which factories may be called, which programs loaded.

    Raises:
        ClassifierError: if the file is missing, unreadable, not trusted, holds other weights or values that are not
            finite.
    """
    if not path.is_file():
        raise ClassifierError(f"no file of weights at {path}; train the classifier or correct the path")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ClassifierError(f"the weights {path} cannot be read: {error.strerror}") from error
    return classifier_of(spec, content, origin=path, dtype=dtype, device=device, trust=trust)


def classifier_of(
    spec: ClassifierSpec,
    content: bytes,
    *,
    origin: Path,
    dtype: str = "auto",
    device: str | torch.device = "cpu",
    trust: Trust = TRUST_NOTHING,
) -> StoredClassifier:
    """As `load_classifier`, of a file that has been read already: what was verified is what is used.

    Args:
        spec: what the file belongs to.
        content: the file's bytes.
        origin: where they came from, for errors.
        dtype, device, trust: see `load_classifier`.

    Raises:
        ClassifierError: see `load_classifier`.
    """
    source, name = _source_of(spec)
    opened: StoredClassifier = source.open(
        name, spec, content, origin=origin, dtype=dtype, device=torch.device(device), trust=trust
    )
    return opened


def save_weights(classifier: StoredClassifier, path: Path) -> None:
    """Write what `load_classifier` reads, complete or not at all, in the precision it was loaded with.

    Raises:
        OSError: whatever the file system refused, for example a full disk.
    """
    source, _ = _source_of(classifier.spec)
    write_file_atomically(path, source.save(classifier))


def file_suffix(spec: ClassifierSpec) -> str:
    """The ending of a file with this classifier, ".safetensors" or ".pt2" for example."""
    return _source_of(spec)[0].suffix


def _source_of(spec: ClassifierSpec) -> tuple[Source[Any], str]:
    architecture = parse_architecture(spec.architecture)
    return SOURCES[architecture.kind], architecture.name
