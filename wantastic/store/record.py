"""One named value on flash that survives power cuts, torn writes and full disks.

Theory of operation
  NAME           the value
  NAME.new       the value being written; complete once it has been fsynced
  NAME.previous  the value before the last write
  NAME.corrupt   the last file that was found damaged, for whoever wants to know why
  NAME.unreadable, NAME.unreadable.2 ...   values whose checksum was right and that this
                 program cannot use, such as those of another version; never written over

  write:  create NAME.new and fsync it; rename NAME to NAME.previous; rename NAME.new
          to NAME; fsync the folder. When that returned, the value lasts.
  read:   the first of NAME, NAME.new, NAME.previous whose checksum is right, and which
          is of use to whoever owns the value. After a cut between the two renames that
          is NAME.new, which is complete by then.
  A value that is of no use is copied to NAME.unreadable before the next write, which
  fails when that is impossible.

Each file starts with a line of magic, length and SHA-256 of what follows, so that a
torn or rotten file is recognised whatever the file system did to it. A value that is
on disk already is not written again: flash wears out.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from wantastic.store.filesystem import Filesystem

FILE_MODE = 0o600
FOLDER_MODE = 0o700
MAX_BYTES = 4 << 20
MAX_KEPT_ASIDE = 9
_HEADER = re.compile(rb"wantastic-record 1 (\d{1,8}) ([0-9a-f]{64})\n")

REMEDIES = {
    errno.ENOSPC: "Free some space on this file system; the agent goes on without saving.",
    errno.EDQUOT: "Raise the quota; the agent goes on without saving.",
    errno.EROFS: "Set state_dir to a folder on a writable file system.",
    errno.EACCES: "Run the agent as the owner of this folder, or set state_dir.",
    errno.EPERM: "Run the agent as the owner of this folder, or set state_dir.",
    errno.ENOTDIR: "Set state_dir to a folder; a file is in its place.",
    errno.ENOENT: "Set state_dir to a folder that can be made.",
    errno.ELOOP: "Remove the symbolic link of that name.",
}


class StoreError(Exception):
    """A value could not be read or written; the one on disk before is untouched."""

    def __init__(self, path: Path, action: str, error: OSError) -> None:
        self.path = path
        self.errno = error.errno or 0
        known = REMEDIES.get(self.errno, "Check the file system that holds it.")
        self.remedy = str(getattr(error, "remedy", known))
        self.problem = f"{path}: cannot be {action}: {error.strerror or error}"
        super().__init__(f"{self.problem}. {self.remedy}")


def seal(payload: bytes) -> bytes:
    """Return a file's content for a value."""
    digest = hashlib.sha256(payload).hexdigest()
    return b"wantastic-record 1 %d %s\n" % (len(payload), digest.encode()) + payload


def unseal(content: bytes) -> bytes | None:
    """Return the value in a file's content; None when it is torn or damaged."""
    header = _HEADER.match(content)
    if header is None:
        return None
    payload = content[header.end() :]
    good = int(header[1]) == len(payload)
    good = good and hashlib.sha256(payload).hexdigest().encode() == header[2]
    return payload if good else None


def anything(payload: bytes) -> bool:
    """Return that every value is of use."""
    return True


class Record:
    """A value with a name in the state folder. Not shared between processes."""

    def __init__(
        self,
        folder: Path,
        name: str,
        disk: Filesystem,
        noticed: Callable[[str], None],
        usable: Callable[[bytes], bool] = anything,
    ) -> None:
        self._folder = folder
        self._path = folder / name
        self._disk = disk
        self._noticed = noticed
        self._usable = usable
        self._unreadable: list[bytes] = []
        self._known: bytes | None = None
        self._name_is_good = False
        self._is_in_new = False
        self._looked = False
        self.writes = 0

    def _beside(self, suffix: str) -> Path:
        return self._path.with_name(self._path.name + suffix)

    def read(self) -> bytes | None:
        """Return the value, None when there never was one; StoreError when unreadable."""
        self._looked = True
        damaged = []
        for path in (self._path, self._beside(".new"), self._beside(".previous")):
            try:
                content = self._disk.read(path, MAX_BYTES + 1024)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno == errno.EIO:
                    damaged.append(path)
                    continue
                raise StoreError(path, "read", error) from error
            payload = unseal(content)
            if payload is None:
                damaged.append(path)
                continue
            if not self._usable(payload):
                self._note_unreadable(path, payload)
                continue
            self._known = payload
            self._name_is_good = path == self._path
            self._is_in_new = path == self._beside(".new")
            self._report(damaged, path)
            return payload
        self._report(damaged, None)
        return None

    def _report(self, damaged: list[Path], used: Path | None) -> None:
        """Keep what is damaged aside; a torn NAME.new is only a write that was cut off."""
        for path in damaged:
            if path.name.endswith(".new"):
                continue
            instead = f"{used.name} is used instead" if used else "there is no other copy"
            self._noticed(f"{path} is damaged and kept as {self._path.name}.corrupt; {instead}")
            with contextlib.suppress(OSError):
                self._disk.rename(path, self._beside(".corrupt"))

    def keep_unreadable(self) -> None:
        """Say that the value on disk holds more than could be read: keep it aside, too."""
        if self._known is not None:
            self._note_unreadable(self._path, self._known)

    def _note_unreadable(self, path: Path, payload: bytes) -> None:
        if payload not in self._unreadable:
            self._unreadable.append(payload)
            self._noticed(f"{path} is whole, but this version cannot use what it holds")

    def _put_aside(self) -> None:
        """Copy what could not be used to names of its own. OSError."""
        for payload in self._unreadable:
            content = seal(payload)
            for number in range(1, MAX_KEPT_ASIDE + 1):
                path = self._beside(".unreadable" + (f".{number}" if number > 1 else ""))
                try:
                    found = self._disk.read(path, MAX_BYTES + 1024)
                except FileNotFoundError:
                    found = b""
                if found == content:
                    break
                # What a cut tore was a copy, and its original is still there.
                if unseal(found) is None:
                    self._disk.create(path, content, FILE_MODE)
                    break
            else:
                raise OSError(errno.EEXIST, "too many values were kept aside")
        if self._unreadable:
            self._disk.sync_folder(self._folder)
            self._unreadable = []

    def write(self, payload: bytes) -> bool:
        """Make `payload` the value, lastingly; False when it was so already."""
        if not self._looked:
            self.read()
        if payload == self._known and self._name_is_good:
            return False
        if len(payload) > MAX_BYTES:
            raise StoreError(self._path, "written", OSError(errno.EFBIG, "too large"))
        fresh = self._beside(".new")
        try:
            self._disk.make_folder(self._folder, FOLDER_MODE)
            self._put_aside()
            self._settle(fresh)
        except OSError as error:
            raise StoreError(self._path, "written", error) from error
        try:
            self._disk.create(fresh, seal(payload), FILE_MODE)
            if self._name_is_good:
                self._disk.rename(self._path, self._beside(".previous"))
                self._name_is_good = False
            self._disk.rename(fresh, self._path)
            self._disk.sync_folder(self._folder)
        except OSError as error:
            if not self._name_is_good and self._known is not None:
                self._restore()
            with contextlib.suppress(OSError):
                self._disk.remove(fresh)
            raise StoreError(self._path, "written", error) from error
        self._known = payload
        self._name_is_good = True
        self.writes += 1
        return True

    def _settle(self, fresh: Path) -> None:
        """Bring a value that a cut left elsewhere to NAME, before NAME.new is used again."""
        if self._known is None or self._name_is_good:
            return
        if not self._is_in_new:
            self._disk.create(fresh, seal(self._known), FILE_MODE)
        self._disk.rename(fresh, self._path)
        self._disk.sync_folder(self._folder)
        self._name_is_good, self._is_in_new = True, False

    def _restore(self) -> None:
        """Put the old value back in its place after a write that failed half way."""
        with contextlib.suppress(OSError):
            self._disk.rename(self._beside(".previous"), self._path)
            self._name_is_good = True

    def keep_copy(self) -> None:
        """Make NAME.previous a second copy of the value; for what can never be made again."""
        if self._known is None:
            return
        try:
            self._put_aside()
            self._disk.create(self._beside(".previous"), seal(self._known), FILE_MODE)
            self._disk.sync_folder(self._folder)
        except OSError as error:
            raise StoreError(self._beside(".previous"), "written", error) from error
        self.writes += 1

    def remove(self) -> None:
        """Forget the value and its older copies."""
        for path in (self._path, self._beside(".new"), self._beside(".previous")):
            try:
                self._disk.remove(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StoreError(path, "removed", error) from error
        with contextlib.suppress(OSError):
            self._disk.sync_folder(self._folder)
        self._known, self._name_is_good, self._is_in_new = None, False, False
