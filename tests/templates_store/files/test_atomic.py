"""A file or directory is written whole or not at all, whatever happens in the middle."""

import errno
import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from modeguard.templates_store.files import sweep_leftovers, write_directory_atomically, write_file_atomically


def contents(directory: Path) -> dict[str, str]:
    return {str(p.relative_to(directory)): p.read_text() for p in directory.rglob("*") if p.is_file()}


@pytest.fixture
def existing(tmp_path: Path) -> Path:
    directory = tmp_path / "bundle"
    directory.mkdir()
    (directory / "manifest.json").write_text("old")
    return directory


def write(path: Path, text: str = "new") -> None:
    with write_directory_atomically(path) as directory:
        (directory / "manifest.json").write_text(text)
        (directory / "inner").mkdir()
        (directory / "inner" / "more.json").write_text(text)


def test_a_new_directory_holds_all_that_was_written_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "missing" / "parents" / "bundle"
    write(target)
    assert contents(target) == {"manifest.json": "new", "inner/more.json": "new"}
    assert list(target.parent.iterdir()) == [target]


def test_success_replaces_the_whole_directory(existing: Path) -> None:
    (existing / "only_in_the_old.json").write_text("old")
    write(existing)
    assert contents(existing) == {"manifest.json": "new", "inner/more.json": "new"}
    assert list(existing.parent.iterdir()) == [existing]


def test_nothing_is_visible_before_the_end(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    with write_directory_atomically(target) as directory:
        (directory / "manifest.json").write_text("new")
        assert not target.exists()
    assert target.is_dir()


@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), ValueError("nonsense")]
)
def test_a_failure_in_the_middle_keeps_the_old_and_leaves_no_trace(existing: Path, failure: BaseException) -> None:
    def write_half() -> None:
        with write_directory_atomically(existing) as directory:
            (directory / "manifest.json").write_text("half")
            raise failure

    with pytest.raises(type(failure)):
        write_half()
    assert contents(existing) == {"manifest.json": "old"}
    assert list(existing.parent.iterdir()) == [existing]


def test_a_disk_that_is_full_only_at_the_sync_keeps_the_old(existing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(existing)
    assert contents(existing) == {"manifest.json": "old"}
    assert list(existing.parent.iterdir()) == [existing]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, PermissionError])
def test_a_failure_between_the_two_renames_puts_the_old_back(
    existing: Path, monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]
) -> None:
    rename = Path.rename

    def fails_for_the_new(self: Path, target: Path) -> Path:
        if ".new-" in self.name:
            raise failure
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_for_the_new)
    with pytest.raises(failure):
        write(existing)
    assert contents(existing) == {"manifest.json": "old"}
    assert list(existing.parent.iterdir()) == [existing]


def test_a_killed_writer_is_cleaned_up_by_the_next(existing: Path) -> None:
    program = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from modeguard.templates_store.files import write_directory_atomically
        with write_directory_atomically(Path(sys.argv[1])) as directory:
            (directory / "manifest.json").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    finished = subprocess.run([sys.executable, "-c", program, str(existing)], check=False)
    assert finished.returncode == -signal.SIGKILL
    assert contents(existing) == {"manifest.json": "old"}
    assert len(list(existing.parent.iterdir())) == 2
    write(existing)
    assert list(existing.parent.iterdir()) == [existing]


def test_a_directory_moved_away_by_a_dead_writer_comes_back(existing: Path) -> None:
    existing.rename(existing.with_name(".bundle.old-abc"))
    sweep_leftovers(existing)
    assert contents(existing) == {"manifest.json": "old"}
    assert list(existing.parent.iterdir()) == [existing]


def test_two_writers_at_once_do_not_sweep_one_another(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    with write_directory_atomically(target) as first:
        (first / "a.json").write_text("first")
        write(target, "second")
        assert contents(target)["manifest.json"] == "second"
    assert contents(target) == {"a.json": "first"}
    assert list(tmp_path.iterdir()) == [target]


def test_many_processes_writing_one_directory_leave_one_whole_version(tmp_path: Path) -> None:
    target = tmp_path / "bundle [1]"
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from modeguard.templates_store.files import write_directory_atomically
        for round in range(30):
            with write_directory_atomically(Path(sys.argv[1])) as directory:
                for part in "abc":
                    (directory / part).write_text(f"{sys.argv[2]} {round}")
        """
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, str(target), str(k)]) for k in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    written = contents(target)
    assert set(written) == {"a", "b", "c"}
    assert len(set(written.values())) == 1
    assert list(tmp_path.iterdir()) == [target]


def test_a_neighbor_with_a_longer_name_is_not_touched(tmp_path: Path) -> None:
    with write_directory_atomically(tmp_path / "bundle-2") as other:
        (other / "a.json").write_text("other")
        write(tmp_path / "bundle")
    assert contents(tmp_path / "bundle-2") == {"a.json": "other"}


def test_a_file_in_the_place_is_refused_and_kept(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    target.write_text("a file")
    with pytest.raises(NotADirectoryError, match="is a file"):
        write(target)
    assert target.read_text() == "a file"


def test_a_link_is_followed(existing: Path) -> None:
    link = existing.with_name("current")
    link.symlink_to(existing)
    write(link)
    assert link.is_symlink()
    assert contents(existing)["manifest.json"] == "new"


def test_permissions_follow_the_umask_even_where_a_library_writes_private_files(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with write_directory_atomically(tmp_path / "bundle") as directory:
            (directory / "private.json").write_text("a library made this 0600")
            (directory / "private.json").chmod(0o600)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "bundle").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "bundle" / "private.json").stat().st_mode) == 0o644


# --- single files


def test_a_file_gets_its_content_and_its_missing_parents_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "report.html"
    for content in (b"first", b"second"):
        write_file_atomically(path, content)
        assert path.read_bytes() == content
        assert list(path.parent.iterdir()) == [path]


def test_a_file_has_the_permissions_that_the_umask_gives(tmp_path: Path) -> None:
    write_file_atomically(tmp_path / "ours", b"")
    (tmp_path / "theirs").write_bytes(b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "theirs").stat().st_mode


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_keeps_the_old_file_and_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    path = tmp_path / "report.html"
    path.write_bytes(b"old")

    def fails(_descriptor: int) -> None:
        raise failure

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(type(failure)):
        write_file_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
