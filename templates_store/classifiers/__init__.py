"""Classifiers: naming one (`spec`, `architecture`), where it comes from (`sources`), whether it is fit (`checks`).

To add a network that modeguard builds itself: write it in `networks` and add one line to `ARCHITECTURES` in
`sources.built_in`. To add another kind of classifiers: see `sources`.

What lives here: everything between the text in a recipe or a manifest and a classifier that can be asked. What must
not: how a classifier is trained, judged or attacked, what a bundle holds beside it, and any decision to trust code,
which is the user's (`trust`).
"""

from modeguard.templates_store.classifiers.architecture import Architecture, architecture_forms, parse_architecture
from modeguard.templates_store.classifiers.checks import check_classifier, check_pixel_scale
from modeguard.templates_store.classifiers.compute import (
    DTYPES,
    DtypeName,
    dtype_name,
    resolve_device,
    resolve_dtype,
)
from modeguard.templates_store.classifiers.errors import ClassifierError, DeviceError, nearest_names
from modeguard.templates_store.classifiers.loading import (
    build_classifier,
    classifier_of,
    file_suffix,
    load_classifier,
    save_weights,
)
from modeguard.templates_store.classifiers.network_classifier import NetworkClassifier
from modeguard.templates_store.classifiers.spec import ClassifierSpec
from modeguard.templates_store.classifiers.trust import TRUST_EVERYTHING, TRUST_NOTHING, Trust

__all__ = [
    "DTYPES",
    "TRUST_EVERYTHING",
    "TRUST_NOTHING",
    "Architecture",
    "ClassifierError",
    "ClassifierSpec",
    "DeviceError",
    "DtypeName",
    "NetworkClassifier",
    "Trust",
    "architecture_forms",
    "build_classifier",
    "check_classifier",
    "check_pixel_scale",
    "classifier_of",
    "dtype_name",
    "file_suffix",
    "load_classifier",
    "nearest_names",
    "parse_architecture",
    "resolve_device",
    "resolve_dtype",
    "save_weights",
]
