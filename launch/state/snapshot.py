"""The code that jobs run: a copy of the working tree at submission, independent of later changes.

EXP/jobs/snapshots/HASH/ contains the tracked files as edited and the untracked ones that git does not ignore.
Equal trees share one folder.
"""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import List

from textocvp.files import UserError, atomic_folder

MAX_BYTES = 50 << 20
"""A larger tree contains files that are not code."""
HASH_DIGITS = 16
LEFT_OUT = ("experiments", "__pycache__", "build", "dist")
"""Folders that are skipped in a tree without git, as are hidden ones."""


def snapshot_folder(root: Path) -> Path:
    """The snapshots folder of the experiment in `root`."""
    return Path(root).resolve() / "jobs" / "snapshots"


def snapshot_path(code: Path, folder: Path) -> Path:
    """The folder to which `take_snapshot` copies the tree."""
    return folder / tree_hash(code, tree_files(code))[:HASH_DIGITS]


def take_snapshot(code: Path, folder: Path) -> Path:
    """Copy the tree below `code` to `folder`/HASH, unless that exists; returns that path.

    Raises:
        UserError: the tree is too large; its largest files are named.
    """
    files = tree_files(code)
    sizes = {name: (code / name).lstat().st_size for name in files}
    if sum(sizes.values()) > MAX_BYTES:
        largest = sorted(files, key=sizes.__getitem__, reverse=True)[:3]
        named = ", ".join(f"{name} ({sizes[name] / 1e6:.0f} MB)" for name in largest)
        raise UserError(
            f"{code}: its files take {sum(sizes.values()) / 1e6:.0f} MB, more than the {MAX_BYTES >> 20} MB "
            f"allowed for a snapshot: {named}; add them to .gitignore"
        )
    target = folder / tree_hash(code, files)[:HASH_DIGITS]
    try:
        if not target.is_dir():
            with atomic_folder(target) as temporary:
                for name in files:
                    (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(code / name, temporary / name, follow_symlinks=False)
    except OSError:
        if not target.is_dir():  # else a concurrent submission created it
            raise
    return target


def tree_files(code: Path) -> List[str]:
    """Relative paths of the tree's files, sorted."""
    command = ["git", "-C", str(code), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        listed = _walk(code)
    return sorted(
        {name for name in listed if name and os.path.lexists(code / name) and not (code / name).is_dir()}
    )


def tree_hash(code: Path, files: List[str]) -> str:
    """SHA-256 over names, modes and contents."""
    digest = hashlib.sha256()
    for name in files:
        path = code / name
        content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        digest.update(f"{name}\0{path.lstat().st_mode & 0o111:o}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _walk(code: Path) -> List[str]:
    """The files below `code` without hidden ones and folders that are not code."""
    found = []
    for folder, below, names in os.walk(code):
        below[:] = [name for name in below if not name.startswith(".") and name not in LEFT_OUT]
        inside = Path(folder).relative_to(code)
        found += [(inside / name).as_posix() for name in names if not name.startswith(".")]
    return found
