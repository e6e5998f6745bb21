"""What a step leaves behind is whole, is found again by what it depends on, and survives interruptions."""

import json
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from modeguard.offline.pipeline import artifacts
from modeguard.offline.pipeline.artifacts import ArtifactEntry, ArtifactStore, DamagedArtifactError
from modeguard.offline.pipeline.keys import ArtifactError, artifact_key, canonical_json

KEY = artifact_key("attack", 1, {"epsilon": 0.03})
TENSORS = {"images": torch.arange(12, dtype=torch.uint8).reshape(3, 4), "losses": torch.tensor([0.5, -1.0, 2.0])}
INFO = {"n_attacked": 3, "elapsed": {"rows": [1, 2]}, "name": "fgsm", "median": 0.25, "none": None}


@dataclass(frozen=True, slots=True)
class Options:
    """Stands for the options of a step."""

    epsilon: float = 0.03
    points: tuple[int, ...] = (5, 9)
    root: Path = Path("data")


@pytest.fixture
def entry(store: ArtifactStore) -> ArtifactEntry:
    return store.entry("attack", KEY)


# --- keys


def test_a_record_and_the_mapping_that_says_the_same_have_one_text() -> None:
    same = {"root": "data", "points": [5, 9], "epsilon": 0.03}
    assert canonical_json(Options()) == canonical_json(same)
    assert canonical_json(Options()) == '{"epsilon":0.03,"points":[5,9],"root":"data"}'


def test_the_key_is_the_same_in_every_process_and_version() -> None:
    """Golden: sha256sum of the canonical text, computed by coreutils; a new value orphans everybody's artefacts."""
    text = '{"options":{"epsilon":0.03},"step":"attack","upstream":[],"version":1}'
    said = subprocess.run(["sha256sum"], input=text.encode(), capture_output=True, check=True).stdout
    assert said.decode().split()[0] == KEY


@pytest.mark.parametrize(
    "other",
    [
        artifact_key("fit", 1, {"epsilon": 0.03}),
        artifact_key("attack", 2, {"epsilon": 0.03}),
        artifact_key("attack", 1, {"epsilon": 0.031}),
        artifact_key("attack", 1, {"epsilon": 0.03, "steps": 1}),
        artifact_key("attack", 1, {"epsilon": 0.03}, ["a" * 64]),
    ],
)
def test_whatever_changes_changes_the_key(other: str) -> None:
    assert other != KEY


def test_the_order_of_what_comes_before_is_part_of_the_key() -> None:
    assert artifact_key("fit", 1, {}, ["a", "b"]) != artifact_key("fit", 1, {}, ["b", "a"])


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"loss": float("nan")}, r"value\.loss is nan"),
        ({"a": [1, torch.zeros(1)]}, r"value\.a\[1\]"),
        ({"a": {1, 2}}, "set"),
        ({"a": {1: 2}}, "keys of type str"),
    ],
)
def test_what_json_cannot_hold_is_refused_with_its_place(value: object, place: str) -> None:
    with pytest.raises(ArtifactError, match=place):
        canonical_json(value)


# --- one entry


def test_what_was_written_is_read_back(entry: ArtifactEntry) -> None:
    assert not entry.exists()
    entry.write(TENSORS, INFO)
    read = entry.read()
    assert entry.exists()
    assert read.info == INFO
    assert set(read.tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert read.tensors[name].dtype == tensor.dtype
        assert torch.equal(read.tensors[name], tensor)


def test_views_transposed_shared_and_empty_tensors_are_kept(entry: ArtifactEntry) -> None:
    whole = torch.arange(6.0)
    odd = {
        "head": whole[:2],
        "tail": whole[2:],
        "turned": whole.reshape(2, 3).T,
        "empty": torch.zeros(0, 3),
        "grad": torch.ones(2, requires_grad=True) * 2,
    }
    entry.write(odd, {})
    for name, tensor in entry.read().tensors.items():
        assert torch.equal(tensor, odd[name].detach())


def test_two_runs_write_the_same_bytes(store: ArtifactStore, tmp_path: Path) -> None:
    other = ArtifactStore(tmp_path / "elsewhere")
    for place in (store, other):
        place.entry("attack", KEY).write(TENSORS, INFO)
    first, second = store.entry("attack", KEY).path, other.entry("attack", KEY).path
    for name in ("tensors.safetensors", "info.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def truncate_tensors(path: Path) -> None:
    file = path / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-3])


def flip_a_bit(path: Path) -> None:
    file = path / "tensors.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def truncate_info(path: Path) -> None:
    file = path / "info.json"
    file.write_text(file.read_text()[:40])


def alter_info(path: Path) -> None:
    record = json.loads((path / "info.json").read_text())
    record["info"]["n_attacked"] = 4
    (path / "info.json").write_text(json.dumps(record))


def empty_info(path: Path) -> None:
    (path / "info.json").write_text("[]")


def binary_info(path: Path) -> None:
    (path / "info.json").write_bytes(b"\xff\xfe\x00")


def remove_tensors(path: Path) -> None:
    (path / "tensors.safetensors").unlink()


def other_key(path: Path) -> None:
    record = json.loads((path / "info.json").read_text())
    record["key"] = KEY[:12] + "0" * 52
    (path / "info.json").write_text(json.dumps(record))


DAMAGES = [
    truncate_tensors,
    flip_a_bit,
    truncate_info,
    alter_info,
    empty_info,
    binary_info,
    remove_tensors,
    other_key,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_found_said_and_mended_by_writing_again(
    entry: ArtifactEntry, warnings_said: list[str], damage: object
) -> None:
    assert callable(damage)
    entry.write(TENSORS, INFO)
    damage(entry.path)
    with pytest.raises(DamagedArtifactError, match=entry.path.name):
        entry.read()
    assert entry.read_if_intact() is None
    assert len(warnings_said) == 1
    assert "making it again" in warnings_said[0]
    entry.write(TENSORS, INFO)
    assert entry.exists()
    assert len(warnings_said) == 1


def test_an_absent_artefact_is_no_damage_worth_a_word(entry: ArtifactEntry, warnings_said: list[str]) -> None:
    assert entry.read_if_intact() is None
    assert not warnings_said


def test_a_full_disk_is_said_with_path_and_reason_and_loses_nothing(
    entry: ArtifactEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry.write(TENSORS, INFO)

    def full(_tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(artifacts, "save_file", full)
    with pytest.raises(ArtifactError, match=f"{entry.path.name}: No space left on device"):
        entry.write({"other": torch.zeros(1)}, {})
    assert entry.read().info == INFO
    assert list(entry.path.parent.iterdir()) == [entry.path]


def test_what_the_kernel_refuses_is_said_as_well(entry: ArtifactEntry) -> None:
    """The library that writes tensors has errors of its own; a file size limit makes it meet a real one."""
    program = textwrap.dedent(
        """
        import resource, sys, torch
        from pathlib import Path
        from modeguard.offline.pipeline.artifacts import ArtifactError, ArtifactStore
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            ArtifactStore(Path(sys.argv[1])).entry("attack", sys.argv[2]).write({"large": torch.zeros(10_000)}, {})
        except ArtifactError as error:
            print(error)
        """
    )
    entry.write(TENSORS, INFO)
    command = [sys.executable, "-c", program, str(entry.path.parent), KEY]
    assert "File too large" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert entry.read().info == INFO
    assert list(entry.path.parent.iterdir()) == [entry.path]


def test_info_that_json_cannot_hold_is_refused_before_anything_is_written(entry: ArtifactEntry) -> None:
    with pytest.raises(ArtifactError, match="auroc is nan"):
        entry.write({}, {"auroc": float("nan")})
    assert not entry.path.exists()


def test_a_directory_that_cannot_be_made_is_an_error_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    store = ArtifactStore(tmp_path / "file" / "digits")
    with pytest.raises(ArtifactError, match=r"cannot work in .*digits: Not a directory"), store.locked():
        pass
    with pytest.raises(ArtifactError, match="cannot write"):
        store.entry("attack", KEY).write(TENSORS, INFO)
