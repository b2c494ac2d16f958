"""The few operations on files that the store needs; tests put a recording one in its place."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Protocol

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class SharedFolderError(OSError):
    """Others may write to a folder: they could take our files away and put theirs there."""

    def __init__(self, path: Path, mode: int) -> None:
        super().__init__(errno.EPERM, "the folder is shared with others", str(path))
        sticky = mode & stat.S_ISVTX
        own = "set state_dir to a folder of the agent's own"
        # /tmp and the like are meant to be shared.
        self.remedy = (
            f"{own[0].upper()}{own[1:]}." if sticky else f"Run `chmod go-w {path}`, or {own}."
        )


class Filesystem(Protocol):
    """Each operation raises OSError as the system call below it does."""

    def make_folder(self, path: Path, mode: int) -> None:
        """Make a folder of that mode, and its parents; one that exists stays as it is.

        SharedFolderError when it exists and others may write to it.
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
            path.parent.mkdir(parents=True, exist_ok=True)
            # Without exist_ok: what somebody else made meanwhile is not ours to change.
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=mode)
                # The umask may have taken from the mode what the owner needs.
                path.chmod(mode)
                self.sync_folder(path.parent)
        found = path.stat().st_mode
        if found & OTHERS_WRITE:
            raise SharedFolderError(path, found)

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
