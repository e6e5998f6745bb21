"""What the tests of kept artefacts share: an empty store, and the warnings that it gives."""

from pathlib import Path

import pytest

from modeguard.offline.pipeline import ArtifactStore


@pytest.fixture
def warnings_said() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, warnings_said: list[str]) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts" / "digits", warn=warnings_said.append)
