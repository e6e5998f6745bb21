"""Long steps go on where they stopped, and two processes do not get into each other's way."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch

from modeguard.offline.pipeline.artifacts import ArtifactEntry, ArtifactStore, DamagedArtifactError
from modeguard.offline.pipeline.keys import artifact_key

KEY = artifact_key("attack", 1, {"epsilon": 0.03})


@pytest.fixture
def entry(store: ArtifactStore) -> ArtifactEntry:
    return store.entry("attack", KEY)


def shard(index: int) -> dict[str, torch.Tensor]:
    return {"rows": torch.arange(3) + 10 * index}


def test_an_interrupted_run_goes_on_at_the_next_shard(store: ArtifactStore) -> None:
    made: list[int] = []

    def run(stop_before: int | None) -> None:
        entry = store.entry("attack", KEY)
        shards = entry.shards(4)
        for k in shards.missing():
            if k == stop_before:
                raise KeyboardInterrupt
            shards.write_shard(k, shard(k))
            made.append(k)
        entry.write({"rows": torch.cat([shards.read_shard(k).tensors["rows"] for k in range(4)])}, {})

    with pytest.raises(KeyboardInterrupt):
        run(stop_before=2)
    assert not store.entry("attack", KEY).exists()
    run(stop_before=None)
    assert made == [0, 1, 2, 3]
    whole = store.entry("attack", KEY).read()
    assert whole.tensors["rows"].tolist() == [0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32]
    assert list(store.root.iterdir()) == [store.entry("attack", KEY).path]


def test_a_damaged_shard_is_made_again(entry: ArtifactEntry, warnings_said: list[str]) -> None:
    shards = entry.shards(3)
    for k in range(3):
        shards.write_shard(k, shard(k))
    (shards.parts[1].path / "tensors.safetensors").write_bytes(b"cut short")
    assert shards.missing() == [1]
    assert len(warnings_said) == 1


def test_shards_of_another_cut_are_not_mixed_in(entry: ArtifactEntry) -> None:
    entry.shards(2).write_shard(0, shard(0))
    assert entry.shards(3).missing() == [0, 1, 2]
    assert entry.shards(2).missing() == [1]


def test_a_missing_shard_cannot_be_read(entry: ArtifactEntry) -> None:
    shards = entry.shards(2)
    shards.write_shard(0, shard(0))
    with pytest.raises(DamagedArtifactError, match="missing"):
        shards.read_shard(1)


# --- two processes


def test_a_second_process_is_told_who_is_working_there(store: ArtifactStore) -> None:
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from modeguard.offline.pipeline import ArtifactError, ArtifactStore
        try:
            with ArtifactStore(Path(sys.argv[1])).locked():
                print("in")
        except ArtifactError as error:
            print(error)
        """
    )

    def other_process() -> str:
        command = [sys.executable, "-c", program, str(store.root)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    with store.locked():
        refused = other_process()
    assert f"another process (id {os.getpid()})" in refused
    assert str(store.root) in refused
    assert other_process() == "in\n"


def test_the_lock_is_given_back_after_an_error(store: ArtifactStore) -> None:
    with pytest.raises(KeyboardInterrupt), store.locked():
        raise KeyboardInterrupt
    with store.locked():
        assert store.root.is_dir()


def test_what_killed_processes_left_is_swept_and_finished_work_kept(store: ArtifactStore) -> None:
    entry = store.entry("attack", KEY)
    entry.write(shard(0), {})
    waiting = store.entry("fit", KEY).shards(2)
    waiting.write_shard(0, shard(0))
    half = store.root / f".{entry.path.name}.new-abcdef"
    half_shard = waiting.parts[1].path.with_name(".2-of-2.new-abcdef")
    for leftover in (half, half_shard):
        leftover.mkdir()
        (leftover / "tensors.safetensors").write_bytes(b"half")
    with store.locked():
        assert not half.exists()
        assert not half_shard.exists()
        assert entry.exists()
        assert waiting.missing() == [1]
