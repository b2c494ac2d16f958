"""The kernel's packetdrill scripts, out of Debian's linux-source package.

Only their folder is unpacked, once for each version of the package, into build/.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "linux-source-6.12"
ARCHIVE = Path("/usr/src") / f"{PACKAGE}.tar.xz"
FOLDER = f"{PACKAGE}/tools/testing/selftests/net/packetdrill"
CACHE = Path(__file__).resolve().parents[2] / "build" / "packetdrill"


def unpack(archive: Path, cache: Path = CACHE) -> Path:
    """Return the folder with the .pkt files of an archive, unpacking it when it is new."""
    stat = archive.stat()
    ready = cache / f"{stat.st_size}-{stat.st_mtime_ns}"
    if ready.is_dir():
        return ready
    cache.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=cache))
    try:
        # The package depends on xz; a static interpreter has no lzma.
        with (
            subprocess.Popen(["xz", "-dc", archive], stdout=subprocess.PIPE) as xz,
            tarfile.open(fileobj=xz.stdout, mode="r|") as tar,
        ):
            for member in tar:
                path = Path(member.name)
                if member.isfile() and str(path.parent) == FOLDER and path.suffix == ".pkt":
                    content = tar.extractfile(member)
                    assert content is not None
                    (fresh / path.name).write_bytes(content.read())
        fresh.rename(ready)
    except OSError:
        # Another process was first: its folder is as good.
        if not ready.is_dir():
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    os.utime(ready)
    return ready
