"""Where classifiers come from: one file a source, and the table that names them.

A source opens what a file holds and writes it again (`source.Source`). To add one: write one file, add one line here.
What the text of an architecture means is read in `architecture.py`, above this folder; no source reads it again.
"""

from typing import Any

from modeguard.templates_store.classifiers.sources.built_in import ARCHITECTURES, built_in
from modeguard.templates_store.classifiers.sources.exported import ExportedSource
from modeguard.templates_store.classifiers.sources.factories import factory
from modeguard.templates_store.classifiers.sources.libraries import timm, torchvision
from modeguard.templates_store.classifiers.sources.networks import NetworkSource
from modeguard.templates_store.classifiers.sources.source import Source, StoredClassifier

__all__ = ["ARCHITECTURES", "BUILT_IN", "FACTORY", "SOURCES", "NetworkSource", "Source", "StoredClassifier"]

BUILT_IN, FACTORY = "built-in", "factory"
"""The two kinds that are not written in front of a colon: "digits-cnn" and "package.module:factory"."""

SOURCES: dict[str, Source[Any]] = {
    BUILT_IN: built_in,
    "torchvision": torchvision,
    "timm": timm,
    FACTORY: factory,
    "torch.export": ExportedSource(),
}
