"""Disks for store tests: one that loses power at every moment, one that refuses.

CutDisk records operations and can say every content the disk may have after a cut.
Model of the worst file system that still keeps POSIX: what was fsynced stays; a file
that was not may hold nothing, a part, or zeros; renames become lasting in their order,
some or all of them, and for sure once the folder was fsynced.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Inode:
    """A file's bytes: as a running system sees them, and what is known to be on disk."""

    data: bytes = b""
    synced: bool = False


Names = dict[Path, Inode]


@dataclass
class CutDisk:
    """A disk in memory. `moments` collects the possible contents after each operation."""

    names: Names = field(default_factory=dict)
    lasting: Names = field(default_factory=dict)
    pending: list[Names] = field(default_factory=list)
    moments: list[list[dict[Path, bytes]]] = field(default_factory=list)

    def _moment(self) -> None:
        self.moments.append(list(self._contents()))

    def _contents(self) -> Iterator[dict[Path, bytes]]:
        for names in [self.lasting, *self.pending]:
            unsynced = {id(i): i for i in names.values() if not i.synced}
            for torn in ("full", "empty", "half", "zeros") if unsynced else ("full",):
                yield {path: self._torn(inode, torn) for path, inode in names.items()}

    @staticmethod
    def _torn(inode: Inode, how: str) -> bytes:
        data = inode.data
        if inode.synced or how == "full":
            return data
        return {"empty": b"", "half": data[: len(data) // 2], "zeros": bytes(len(data))}[how]

    def make_folder(self, path: Path, mode: int) -> None:
        assert mode == 0o700

    def read(self, path: Path, limit: int) -> bytes:
        if path not in self.names:
            raise FileNotFoundError(errno.ENOENT, "no such file")
        return self.names[path].data[:limit]

    def create(self, path: Path, data: bytes, mode: int) -> None:
        assert mode == 0o600
        # Truncating an existing file makes what it held uncertain at once.
        inode = self.names.get(path)
        if inode is None:
            inode = self.names[path] = Inode()
            self.pending.append(dict(self.names))
        inode.synced = False
        for part in (b"", data[: len(data) // 3], data):
            inode.data = part
            self._moment()
        inode.synced = True
        self._moment()

    def rename(self, old: Path, new: Path) -> None:
        if old not in self.names:
            raise FileNotFoundError(errno.ENOENT, "no such file")
        self.names[new] = self.names.pop(old)
        self.pending.append(dict(self.names))
        self._moment()

    def remove(self, path: Path) -> None:
        if path not in self.names:
            raise FileNotFoundError(errno.ENOENT, "no such file")
        del self.names[path]
        self.pending.append(dict(self.names))
        self._moment()

    def sync_folder(self, path: Path) -> None:
        self.lasting, self.pending = dict(self.names), []
        self._moment()


def after_cut(contents: dict[Path, bytes]) -> CutDisk:
    """Return a disk that boots with these contents."""
    names = {path: Inode(data, synced=True) for path, data in contents.items()}
    return CutDisk(names=dict(names), lasting=dict(names))


@dataclass
class RefusingDisk(CutDisk):
    """Fails the operation number `fail_at` and, when `for_good`, every later one."""

    fail_at: int = -1
    error: int = errno.ENOSPC
    for_good: bool = True
    done: int = 0

    def _maybe(self) -> None:
        number, self.done = self.done, self.done + 1
        if self.fail_at >= 0 and (
            number == self.fail_at or (self.for_good and number > self.fail_at)
        ):
            raise OSError(self.error, os.strerror(self.error))

    def make_folder(self, path: Path, mode: int) -> None:
        self._maybe()

    def create(self, path: Path, data: bytes, mode: int) -> None:
        self._maybe()
        super().create(path, data, mode)

    def rename(self, old: Path, new: Path) -> None:
        self._maybe()
        super().rename(old, new)

    def remove(self, path: Path) -> None:
        self._maybe()
        super().remove(path)

    def sync_folder(self, path: Path) -> None:
        self._maybe()
        super().sync_folder(path)
