"""Bundles in memory: how the one to be served is read, and which one is served now."""

from dataclasses import dataclass
from pathlib import Path

import torch

from modeguard.detector import Classifier, ModeguardError, Sliced
from modeguard.templates_store.bundles import Bundle, read_bundle
from modeguard.templates_store.classifiers import resolve_device


class NotReadyError(ModeguardError):
    """The bundle is not loaded yet."""


@dataclass(frozen=True, slots=True, eq=False)
class ServedBundle:
    """A bundle in memory, ready to judge.

    Attributes:
        bundle: what was read.
        classifier: the bundle's, in slices of bounded size; this is what the detector asks.
    """

    bundle: Bundle
    classifier: Classifier


@dataclass(frozen=True, slots=True)
class BundleSource:
    """Which bundle is to be served, and how it computes here.

    Attributes:
        path: its directory.
        expected_digest: its digest, if only that one will do.
        device: "auto", "cpu", "cuda:1"; see `resolve_device`.
        dtype: what the classifier computes in; see `read_bundle`.
        rows_per_call: bound on the rows of one call of the classifier.
        torch_threads: CPU threads of one computation; None for torch's choice.
        allowed_factories: "package.module:factory" names that the bundle may call to build its classifier.
        trusted_programs: sha256 of the `torch.export` programs that the bundle may bring as its classifier.
    """

    path: Path
    expected_digest: str | None
    device: str
    dtype: str
    rows_per_call: int
    torch_threads: int | None
    allowed_factories: tuple[str, ...]
    trusted_programs: tuple[str, ...]

    def read(self) -> ServedBundle:
        """Read and verify the bundle, onto its device.

        Raises:
            DeviceError: if there is no such device.
            ModeguardError: whatever `read_bundle` says.
        """
        if self.torch_threads is not None:
            torch.set_num_threads(self.torch_threads)
        bundle = read_bundle(
            self.path,
            device=resolve_device(self.device),
            dtype=self.dtype,
            allowed_factories=self.allowed_factories,
            trusted_programs=self.trusted_programs,
            expected_digest=self.expected_digest,
        )
        return self.serve(bundle)

    def serve(self, bundle: Bundle) -> ServedBundle:
        """A bundle that has been read already, with its classifier in slices."""
        return ServedBundle(bundle, Sliced(bundle.classifier, self.rows_per_call))


class Bundles:
    """The bundle that is served now; there is none until it is loaded."""

    def __init__(self, source: BundleSource, bundle: Bundle | None = None) -> None:
        self._source = source
        self._current = None if bundle is None else source.serve(bundle)

    @property
    def current(self) -> ServedBundle:
        """What new requests are judged with.

        Raises:
            NotReadyError: until it is loaded.
        """
        if self._current is None:
            raise NotReadyError("the bundle is still being loaded; try again soon")
        return self._current

    def load(self) -> None:
        """Read the bundle, unless there is one already; takes seconds.

        Raises:
            ModeguardError: see `BundleSource.read`.
        """
        if self._current is None:
            self._current = self._source.read()
