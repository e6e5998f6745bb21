"""The key of an artefact: one hash of everything that its content depends on."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

from modeguard.detector import ModeguardError

__all__ = ["ArtifactError", "artifact_key", "canonical_json"]


class ArtifactError(ModeguardError):
    """An artefact cannot be written or read; the message names the path and the reason."""


def artifact_key(step: str, version: int, options: object, upstream: Sequence[str] = ()) -> str:
    """Hash of all that a step's output depends on.

    Args:
        step: name of the step.
        version: of the step's code; raised by hand when the same options give another output.
        options: anything `canonical_json` takes.
        upstream: keys of the artefacts that the step reads, in an order that means something.

    Returns:
        64 hexadecimal digits.
    """
    text = canonical_json({"step": step, "version": version, "options": options, "upstream": list(upstream)})
    return hashlib.sha256(text.encode()).hexdigest()


def canonical_json(value: object) -> str:
    """One text for equal values: keys sorted, no spaces, records as objects, tuples as lists.

    Raises:
        ArtifactError: for a value that JSON cannot hold exactly, such as NaN, a tensor or a set.
    """
    return json.dumps(_plain(value, "value"), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: object, place: str) -> object:
    match value:
        case None | bool() | int() | str():
            return value
        case float() if math.isfinite(value):
            return value
        case Path():
            return str(value)
        case Mapping():
            return {_key(k, place): _plain(v, f"{place}.{k}") for k, v in value.items()}
        case list() | tuple():
            return [_plain(v, f"{place}[{k}]") for k, v in enumerate(value)]
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name), f"{place}.{f.name}") for f in fields(value)}
    raise ArtifactError(
        f"{place} is {value!r} ({type(value).__name__}): expected None, bool, int, finite float, str, Path, a record, "
        "or lists and mappings of these; put tensors among the tensors"
    )


def _key(key: object, place: str) -> str:
    if not isinstance(key, str):
        raise ArtifactError(f"{place} has the key {key!r} ({type(key).__name__}): expected keys of type str")
    return key
