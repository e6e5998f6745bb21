"""The manifest of a bundle: what is in it, what it was made from, and the hash of every file."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, PlainSerializer, PlainValidator, TypeAdapter, ValidationError
from torch import Tensor

from modeguard.detector import DetectorConfig, ModeguardError
from modeguard.templates_store.bundles.stored_config import config_of, plain_of
from modeguard.templates_store.classifiers import ClassifierError, ClassifierSpec, DtypeName, parse_architecture
from modeguard.templates_store.images import InputSpec

FORMAT_VERSION = 3
MANIFEST_FILE = "manifest.json"


MAX_MANIFEST_BYTES = 4 * 2**20
"""Bound on the size of a manifest: far above that of any real one, and little enough to be read by anybody."""

MANIFEST_TOO_LONG = f"{MANIFEST_FILE} is at most {MAX_MANIFEST_BYTES} bytes long, this one is longer"

_LONGEST_MESSAGE = 500


class BundleError(ModeguardError, ValueError):
    """A bundle that cannot be written or must not be used; the message names the file and the reason.

    The message is one line of bounded length, whatever a forged bundle puts into it.
    """

    def __init__(self, message: str) -> None:
        line = "".join(letter if letter.isprintable() else " " for letter in message)
        super().__init__(line if len(line) <= _LONGEST_MESSAGE else f"{line[: _LONGEST_MESSAGE - 1]}…")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Shape and type of one stored tensor."""

    shape: tuple[int, ...]
    dtype: str

    @staticmethod
    def of(tensor: Tensor) -> "TensorInfo":
        """What a tensor is."""
        return TensorInfo(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


@dataclass(frozen=True, slots=True)
class FileInfo:
    """Content of one file: its sha256, and the tensors in it (empty where it is no safetensors file)."""

    sha256: str
    tensors: dict[str, TensorInfo]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says of itself.

    Attributes:
        format_version: the layout that this file follows.
        name: the recipe or the product it belongs to.
        class_names: (n_classes,) names in the order of the logits.
        classifier: how to build the classifier.
        compute_dtype: what the classifier computed in when the detector was fitted and calibrated.
        input: how bytes of an image become the classifier's pixels.
        detector: the detector's choices.
        files: by file name.
        seeds: every seed that went in, by what it was for.
        libraries: versions of the libraries that computed it.
        measured: how it was measured, and what came out; JSON values only.
    """

    format_version: int
    name: str
    class_names: tuple[str, ...]
    classifier: ClassifierSpec
    compute_dtype: DtypeName
    input: InputSpec
    detector: Annotated[DetectorConfig, PlainValidator(config_of), PlainSerializer(plain_of)]
    files: dict[str, FileInfo]
    seeds: dict[str, int]
    libraries: dict[str, str]
    measured: dict[str, Any]

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def to_json(self) -> bytes:
        """Stable text: equal manifests give equal bytes."""
        return _ADAPTER.dump_json(self, indent=2) + b"\n"

    @staticmethod
    def from_json(text: bytes) -> "Manifest":
        """Read a manifest.

        Raises:
            BundleError: if it is not JSON, of another format version, lacks something, or names no classifier
                that there is.
        """
        try:
            version = _VERSION_ADAPTER.validate_json(text).format_version
        except ValidationError as error:
            raise BundleError(f"{MANIFEST_FILE} is not the manifest of a bundle: {_first(error)}") from None
        if version != FORMAT_VERSION:
            raise BundleError(
                f"{MANIFEST_FILE} has format version {version}, this modeguard reads version {FORMAT_VERSION}; "
                "build the bundle again, or use the modeguard that built it"
            )
        try:
            manifest = _ADAPTER.validate_json(text)
            parse_architecture(manifest.classifier.architecture)
        except ValidationError as error:
            raise BundleError(f"{MANIFEST_FILE} is damaged: {_first(error)}") from None
        except ClassifierError as error:
            raise BundleError(f"{MANIFEST_FILE}: {error}") from None
        return manifest


@dataclass(frozen=True, slots=True)
class _Version:
    format_version: int


_ADAPTER = TypeAdapter(Manifest)
_VERSION_ADAPTER = TypeAdapter(_Version)


def _first(error: ValidationError) -> str:
    found = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in found["loc"])
    return f"{place + ': ' if place else ''}{found['msg']}"
