"""What the steps of a build leave behind, kept by what it depends on.

`artifacts/<recipe>/<step>-<first 12 digits of the key>/` holds `tensors.safetensors` and `info.json`. The key
hashes the step's code version, its options and the keys of the steps before it, so a changed option redoes only
what depends on it. Long steps write shards, so that an interrupted run goes on where it stopped.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from modeguard.offline.pipeline.keys import ArtifactError, canonical_json
from modeguard.templates_store.files import sweep_leftovers, write_directory_atomically

__all__ = [
    "Artifact",
    "ArtifactEntry",
    "ArtifactStore",
    "DamagedArtifactError",
    "Shards",
]

_TENSORS, _INFO, _LOCK = "tensors.safetensors", "info.json", ".lock"
_FORMAT_VERSION = 1

_LOGGER = logging.getLogger(__name__)

Warn = Callable[[str], None]


class DamagedArtifactError(ArtifactError):
    """An artefact on disk is truncated or altered, or is not an artefact; making it again mends it."""


@dataclass(frozen=True, slots=True, eq=False)
class Artifact:
    """What one step made: tensors by name, and small facts that JSON can hold."""

    tensors: dict[str, Tensor]
    info: dict[str, Any]


class ArtifactStore:
    """The artefacts of one recipe, under one directory.

    Reading needs no lock, for every entry appears whole; a build holds `locked()`.
    """

    def __init__(self, root: Path, *, warn: Warn = _LOGGER.warning) -> None:
        self.root = root
        self.warn = warn

    def entry(self, step: str, key: str) -> "ArtifactEntry":
        """The place of one step's output, whether or not it is there yet."""
        return ArtifactEntry(path=self.root / f"{step}-{key[:12]}", step=step, key=key, warn=self.warn)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the recipe's directory for this process, and clear what killed processes left in it.

        Raises:
            ArtifactError: if another process holds it, naming that process, or if the directory cannot be made.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.root / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise ArtifactError(f"cannot work in {self.root}: {error.strerror or error}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
                raise ArtifactError(
                    f"another process (id {holder}) is working in {self.root}: wait until it has finished, stop it, "
                    "or choose another artefact directory"
                ) from error
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            self._sweep()
            yield
        finally:
            os.close(descriptor)  # which unlocks; the file stays, for removing it would let two in at once

    def _sweep(self) -> None:
        for leftover in [*self.root.rglob(".*.new-*"), *self.root.rglob(".*.old-*")]:
            name = leftover.name[1 : max(leftover.name.rfind(".new-"), leftover.name.rfind(".old-"))]
            sweep_leftovers(leftover.with_name(name))


@dataclass(frozen=True, slots=True)
class ArtifactEntry:
    """The place of one step's output.

    Attributes:
        path: its directory.
        step, key: what it is and what it depends on.
        warn: called with a sentence when something damaged is found and will be made again.
    """

    path: Path
    step: str
    key: str
    warn: Warn

    def exists(self) -> bool:
        """Whether a whole artefact is there. A damaged one is reported through `warn` and counts as absent."""
        return self.read_if_intact() is not None

    def read_if_intact(self) -> Artifact | None:
        """The artefact, or None if it is absent or damaged; the latter is reported through `warn`."""
        if not self.path.exists():
            return None
        try:
            return self.read()
        except DamagedArtifactError as damage:
            self.warn(f"{damage}; making it again")
            return None

    def read(self) -> Artifact:
        """The artefact, after its hashes have been checked.

        Raises:
            DamagedArtifactError: if it is absent, truncated, altered, or of another key.
        """
        try:
            record = json.loads((self.path / _INFO).read_text(encoding="utf-8"))
            expected = self._record(record["info"], record["sha256"])
            if record != expected:
                differing = sorted(name for name in expected if record.get(name) != expected[name])
                raise DamagedArtifactError(
                    f"{self.path / _INFO} is not what was written: {', '.join(differing)} differ"
                )
            if _sha256(self.path / _TENSORS) != record["sha256"]:
                raise DamagedArtifactError(f"{self.path / _TENSORS} is not what was written: its sha256 differs")
            return Artifact(load_file(self.path / _TENSORS), record["info"])
        except FileNotFoundError as error:
            raise DamagedArtifactError(f"{error.filename} is missing") from error
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise DamagedArtifactError(f"{self.path} cannot be read: {error!r}") from error

    def write(self, tensors: Mapping[str, Tensor], info: Mapping[str, object]) -> Artifact:
        """Put the artefact in its place, whole or not at all, and drop the shards that led to it.

        Returns:
            what was written, as reading it would give it.

        Raises:
            ArtifactError: if the disk is full or refuses otherwise, or `info` holds what JSON cannot.
        """
        artifact = _write(self.path, self._record, tensors, info)
        shutil.rmtree(self._work_directory(), ignore_errors=True)
        return artifact

    def shards(self, n_shards: int) -> "Shards":
        """The parts of a long step, kept until `write` replaces them by the whole."""
        entries = tuple(
            ArtifactEntry(
                path=self._work_directory() / f"{k + 1}-of-{n_shards}",
                step=f"{self.step}/{k + 1}-of-{n_shards}",
                key=self.key,
                warn=self.warn,
            )
            for k in range(n_shards)
        )
        return Shards(entries)

    def _work_directory(self) -> Path:
        return self.path.with_name(f"{self.path.name}.work")

    def _record(self, info: Mapping[str, object], sha256: str) -> dict[str, Any]:
        return {
            "format_version": _FORMAT_VERSION,
            "step": self.step,
            "key": self.key,
            "sha256": sha256,
            "info_sha256": hashlib.sha256(canonical_json(info).encode()).hexdigest(),
            "info": info,
        }


@dataclass(frozen=True, slots=True)
class Shards:
    """The parts of a long step: written one by one, each whole or not at all.

    `for k in shards.missing(): shards.write_shard(k, tensors)` resumes where an interrupted run stopped.
    """

    parts: tuple[ArtifactEntry, ...]

    def missing(self) -> list[int]:
        """Indices of the shards still to be made, ascending; damaged ones are reported and among them."""
        return [k for k, part in enumerate(self.parts) if not part.exists()]

    def read_shard(self, index: int) -> Artifact:
        """Shard `index`, counted from 0; raises DamagedArtifactError if it is absent or damaged."""
        return self.parts[index].read()

    def write_shard(self, index: int, tensors: Mapping[str, Tensor]) -> Artifact:
        """Keep shard `index`, counted from 0; raises ArtifactError as `ArtifactEntry.write` does."""
        return self.parts[index].write(tensors, {})


def _write(
    path: Path,
    record: Callable[[Mapping[str, object], str], dict[str, Any]],
    tensors: Mapping[str, Tensor],
    info: Mapping[str, object],
) -> Artifact:
    kept = _storable(tensors)
    plain: dict[str, Any] = json.loads(canonical_json(info))
    try:
        with write_directory_atomically(path) as directory:
            save_file(kept, directory / _TENSORS)
            text = json.dumps(record(plain, _sha256(directory / _TENSORS)), indent=1, allow_nan=False)
            (directory / _INFO).write_text(text + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise ArtifactError(
            f"cannot write {path}: {reason}; what was there before is unchanged. Make room, or choose another "
            "artefact directory, and run the same command again: it goes on where it stopped"
        ) from error
    return Artifact(kept, plain)


def _storable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, and no two sharing memory: what safetensors asks for."""
    storable, seen = {}, set()
    for name, tensor in tensors.items():
        kept = tensor.detach().cpu().contiguous()
        if kept.untyped_storage().data_ptr() in seen:
            kept = kept.clone()
        seen.add(kept.untyped_storage().data_ptr())
        storable[name] = kept
    return storable


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
