"""Files and directories that appear complete or not at all: written beside their place, synced, renamed into it.

Readers never see half a bundle. A failure (full disk, Ctrl-C, any exception) leaves what was there before.
"""

import errno
import fcntl
import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

__all__ = ["sweep_leftovers", "write_directory_atomically", "write_file_atomically"]

_NEW, _OLD = ".new-", ".old-"
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST)  # another writer put its directory there between our two renames
_ATTEMPTS = 100


def write_file_atomically(path: Path, content: bytes) -> None:
    """Put a file at `path`; a file or symbolic link that is there already is replaced.

    On any exception, `KeyboardInterrupt` included, what was there before is kept and nothing is left beside it.

    Args:
        path: where the file goes; missing parents are made.
        content: all of it.

    Raises:
        OSError: whatever the file system refused, for example a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with new.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)  # after success the name is gone already


@contextmanager
def write_directory_atomically(path: Path) -> Iterator[Path]:
    """Yield an empty directory beside `path`; on leaving without an exception it becomes `path`.

    An existing directory at `path` is replaced; a symbolic link is followed, and the directory it points to
    is replaced. On any exception, `KeyboardInterrupt` included, the new directory is removed and an existing
    one kept. Of two writers at once the later one wins. Replacing takes two renames: between them `path` is
    absent for an instant, and after a power cut at that very instant `sweep_leftovers` (called by the next
    write) puts the old directory back.

    Args:
        path: where the directory goes; missing parents are made.

    Raises:
        NotADirectoryError: if `path` is a file.
        OSError: whatever the file system refused, for example a full disk.
    """
    target = path.resolve()
    if target.is_file():
        raise NotADirectoryError(f"{path} is a file, but a directory is to be written there; move the file away first")
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep_leftovers(target)
    with _new_directory(target) as directory:
        try:
            yield directory
            _sync_tree(directory)
            _put_in_place(directory, target)
        finally:
            shutil.rmtree(directory, ignore_errors=True)  # after success the name is gone already


def sweep_leftovers(path: Path) -> None:
    """Remove what killed writers of `path` left beside it, and put back a directory they had moved away.

    Directories that a living process is working on are locked, and left alone.
    """
    target = path.resolve()
    for kind in (_OLD, _NEW):
        for leftover in target.parent.glob(glob.escape(f".{target.name}{kind}") + "*"):
            with _held(leftover) as is_ours:
                if is_ours and kind == _OLD:
                    _put_back(leftover, target)
                if is_ours:
                    shutil.rmtree(leftover, ignore_errors=True)


def _put_back(old: Path, target: Path) -> None:
    if not target.exists():
        with suppress(OSError):  # a writer's newer directory may take the place, or another sweeper be quicker
            old.rename(target)


def _beside(target: Path, kind: str) -> Path:
    return target.with_name(f".{target.name}{kind}{secrets.token_hex(6)}")


@contextmanager
def _new_directory(target: Path) -> Iterator[Path]:
    with ExitStack() as stack:
        while True:
            directory = _beside(target, _NEW)
            directory.mkdir()  # not mkdtemp, which would ignore the umask
            if stack.enter_context(_held(directory)):
                break
            # a sweeper took it between the two lines; the next one will be ours
        yield directory


@contextmanager
def _held(directory: Path) -> Iterator[bool]:
    """Lock a directory for as long as the context lasts; yields whether it is there and was free.

    The kernel lets go when the process dies, so a lock tells a living writer from a killed one.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _lock(descriptor) and directory.exists()
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _put_in_place(directory: Path, target: Path) -> None:
    for _ in range(_ATTEMPTS):
        old = _beside(target, _OLD)
        with _held(target):
            try:
                with suppress(FileNotFoundError):
                    target.rename(old)
                directory.rename(target)
            except BaseException as error:
                _put_back(old, target)
                if not (isinstance(error, OSError) and error.errno in _TAKEN):
                    raise
            else:
                _sync(target.parent)
                return
            finally:
                if target.exists():
                    shutil.rmtree(old, ignore_errors=True)
    raise OSError(errno.EBUSY, "other processes keep writing the same directory", str(target))


def _sync_tree(directory: Path) -> None:
    permissions = directory.stat().st_mode & 0o666
    for place in directory.rglob("*"):
        if place.is_file():
            place.chmod(permissions)  # safetensors writes 0600, which a server of another user could not read
        _sync(place)
    _sync(directory)


def _sync(place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
