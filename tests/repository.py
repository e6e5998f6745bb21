"""The files of the repository."""

import subprocess
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("detector", "templates_store", "offline", "service")
PACKAGES = ("modeguard", *ROOMS)
"""The folders that are installed; what is in the last four, below the name of the first."""

_IGNORED_DIRECTORIES = {"artifacts", "data", "weights", "build", "dist", "__pycache__"}


def repository_files() -> list[PurePosixPath]:
    """Files that belong to the repository: git's list, or without git all but hidden and ignored directories."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (FileNotFoundError, subprocess.CalledProcessError):
        listed = [str(file.relative_to(ROOT)) for file in ROOT.rglob("*") if file.is_file()]
        listed = [name for name in listed if not any(map(_is_ignored, Path(name).parts[:-1]))]
    return [PurePosixPath(name) for name in sorted(listed) if (ROOT / name).is_file()]


def _is_ignored(directory: str) -> bool:
    return directory in _IGNORED_DIRECTORIES or (directory.startswith(".") and directory not in {".ci", ".github"})
