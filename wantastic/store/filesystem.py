"""The few operations on files that the store needs; tests put a recording one in its place."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Protocol


class Filesystem(Protocol):
    """Each operation raises OSError as the system call below it does."""

    def make_folder(self, path: Path, mode: int) -> None:
        """Make a folder and its parents; one that exists gets at most `mode`.

        A folder that everybody may write to (sticky bit) is refused.
        """

    def read(self, path: Path, limit: int) -> bytes:
        """Return at most `limit` bytes of a file."""

    def create(self, path: Path, data: bytes, mode: int) -> None:
        """Make or truncate a file of ours, write all of `data`, fsync the file."""

    def rename(self, old: Path, new: Path) -> None: ...
    def remove(self, path: Path) -> None: ...
    def sync_folder(self, path: Path) -> None:
        """Make the renames in a folder last through a power cut."""


class RealFilesystem:
    """The disk."""

    def make_folder(self, path: Path, mode: int) -> None:
        if not path.is_dir():
            path.mkdir(mode=mode, parents=True, exist_ok=True)
            self.sync_folder(path.parent)
        found = path.stat().st_mode
        if found & stat.S_ISVTX:
            # /tmp and the like: others may own files of our names there, and it is not
            # ours to close.
            raise OSError(errno.EPERM, "the folder is shared with others", str(path))
        if found & 0o777 & ~mode:
            path.chmod(mode)

    def read(self, path: Path, limit: int) -> bytes:
        with path.open("rb") as file:
            return file.read(limit)

    def create(self, path: Path, data: bytes, mode: int) -> None:
        # O_NOFOLLOW: a link that somebody planted must not lead the secret elsewhere.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(path, flags, mode)
        try:
            os.fchmod(fd, mode)
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)

    def remove(self, path: Path) -> None:
        path.unlink()

    def sync_folder(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
