"""Bundles: a classifier and the detector fitted for it, as a directory that moves between machines as it is.

Not here: how either was made, and what is asked of them.
"""

from modeguard.templates_store.bundles.bundle import DETECTOR_FILE, Bundle, read_bundle, write_bundle
from modeguard.templates_store.bundles.manifest import FORMAT_VERSION, MANIFEST_FILE, BundleError, Manifest
from modeguard.templates_store.bundles.stored_config import config_of, plain_of

__all__ = [
    "DETECTOR_FILE",
    "FORMAT_VERSION",
    "MANIFEST_FILE",
    "Bundle",
    "BundleError",
    "Manifest",
    "config_of",
    "plain_of",
    "read_bundle",
    "write_bundle",
]
