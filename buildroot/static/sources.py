"""The pinned sources: what is built, at which version, with which hash; fetched once, then offline.

An archive is looked for by name in $WANTASTIC_SOURCES (folders, separated by colons), then in the
cache; only then is it asked from where it comes: PyPI by pip, Debian by apt-get with source entries
derived from this machine's own. On a system without apt-get the same files have to be put into
$WANTASTIC_SOURCES; the error names file and hash. Nothing is used whose hash differs.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from buildroot.static.cache import BuildError, Cache, hash_file, say


@dataclass(frozen=True)
class Pin:
    """One source. A Debian source package is pinned by its .dsc, which holds the other hashes."""

    origin: str
    """"sdist", "wheel" or "debian"."""
    project: str
    version: str
    file: str
    sha256: str
    suite: str = ""


def _debian(project: str, version: str, suite: str, sha256: str) -> Pin:
    file = f"{project}_{version.partition(':')[2] or version}.dsc"
    return Pin("debian", project, version, file, sha256, suite)


def _sdist(project: str, version: str, sha256: str) -> Pin:
    return Pin("sdist", project, version, f"{project}-{version}.tar.gz", sha256)


def _wheel(project: str, version: str, sha256: str, tag: str = "py3-none-any") -> Pin:
    return Pin("wheel", project, version, f"{project}-{version}-{tag}.whl", sha256)


PINS = {
    pin.project: pin
    for pin in (
        # CPython 3.11 with Debian's security patches.
        _debian(
            "python3.11",
            "3.11.2-6+deb12u8",
            "bookworm",
            "197fa19ab45f41c820f40f6d9ead671c2ea29ddc53ba9424b36f1bf58458a10e",
        ),
        # OpenSSL 3.5 is a branch with long-term support; bookworm's 3.0 has reached its end.
        _debian(
            "openssl",
            "3.5.7-1~deb13u2",
            "trixie",
            "25904642004d30c5c3da4642a72a7d09f8d9eb6e5ce62dab53c0371114faf8f2",
        ),
        _debian(
            "zlib",
            "1:1.3.dfsg+really1.3.1-1",
            "trixie",
            "ede2791e29c1d3b422f9208bdd7edf040c20445ea1e7453a72037576e64fa197",
        ),
        # Its malloc() only (allocator.py); the rest of it comes with zig.
        _debian(
            "musl",
            "1.2.5-3.1~deb13u1",
            "trixie",
            "972970614ed9159b04343b7f85bdf16f565b4a903f05d97e57dc730c7b0b8066",
        ),
        _sdist(
            "grpcio", "1.85.1", "5f530287d5de5f7f66089ead81de44f6787162944dab3922efa65dfdff108a1d"
        ),
        _wheel(
            "grpclib", "0.4.9", "7762ec1c8ed94dfad597475152dd35cbd11aecaaca2f243e29702435ca24cf0e"
        ),
        _wheel("h2", "4.4.1", "0e25f1462b23c9cb82d9eb02e28bc706dac2a68cb457c6a0d74d63c8a2a5d0e6"),
        _wheel(
            "hpack", "4.2.0", "858ac0b02280fa582b5080d68db0899c62a80375e0e5413a74970c5e518b6986"
        ),
        _wheel(
            "hyperframe",
            "6.1.0",
            "b03380493a519fce58ea5af42e4a42317bf9bd425596f7a0835ffce80f1a42e5",
        ),
        _sdist(
            "multidict", "7.2.1", "e8af3e6f1bdbc31fd762b094133b478b89988eaebc63cbe82b1d9e3bbd15cede"
        ),
        _sdist(
            "nuitka", "4.3.3", "3bed65735d5cfc53dc13070f9f17c52dbe584c0f03de32b6ef011f5db674add9"
        ),
        _sdist(
            "protobuf", "7.36.2", "497d0463ff3316681da6c0b9e8d06cb465d61abce00b613ab42226175644d1bb"
        ),
        _sdist(
            "pycryptodome",
            "4.4.0",
            "eab7620c60c85f3fa251d026ec06e094f036d96187bebb9752e46fbcebabbb55",
        ),
        # What the source-tree interpreter for other CPUs tests with.
        _wheel(
            "attrs", "26.1.0", "c647aa4a12dfbad9333ca4e71fe62ddc36f4e63b2d260a37a8b83d2f043ac309"
        ),
        _wheel(
            "hypothesis",
            "6.140.2",
            "4524cb84be90961563ef15634e2efe96150bbcce47621a13cff3c1b03a326663",
        ),
        _wheel(
            "iniconfig", "2.3.1", "9121e2c1fdb355232495be3194c8dfe87ccc2d5dee45947b78e68f499790d7a7"
        ),
        _wheel(
            "packaging", "26.3", "d7193f7c8e4e93f444fde0262bf90af30e16fa0ad0ad44cb553c87339b23cd1c"
        ),
        _wheel(
            "pluggy", "1.7.0", "7dd7b0d8832ba3cb632c306926ded123429211b83641b35dc5c41ad2d34f9bec"
        ),
        _wheel(
            "pygments", "2.21.0", "2363c69b61c4a97c838da3b130dcd6468f4848992b21a82f2a63ec34377137d9"
        ),
        _wheel(
            "pytest", "9.2.0", "07acdcf88ec174f907dc01af70bf52d49b014bbab03faeeade31c96b18c2e588"
        ),
        _wheel(
            "sortedcontainers",
            "2.4.0",
            "a163dcaede0f1c021485e957a39245190e74249897e2ae4b2aa38595db237ee0",
            "py2.py3-none-any",
        ),
        # The compiler is a program for one kind of build machine; elsewhere CC has to be given.
        _wheel(
            "ziglang",
            "0.17.1",
            "ea6cc5d87b033cf0aedfbc8f9549a908cae6c50ac31f1698188fa48a74524b54",
            "py3-none-manylinux_2_12_x86_64.manylinux2010_x86_64.musllinux_1_1_x86_64",
        ),
    )
}


class Sources:
    """Finds, fetches, verifies and unpacks what PINS names."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.folder = cache.root / "sources"
        self.folder.mkdir(exist_ok=True)

    def pin(self, project: str) -> Pin:
        return PINS[project]

    def unpack(self, project: str) -> Path:
        """Return the folder with a source's files: patched, if it is Debian's."""
        pin = PINS[project]
        inputs = {"file": pin.file, "sha256": pin.sha256}
        return self.cache.stage(f"source-{project}", inputs, lambda to: self._unpack(pin, to))

    def _unpack(self, pin: Pin, to: Path) -> None:
        archive = self.fetch(pin)
        if pin.origin == "wheel":
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(to)
        elif pin.origin == "sdist":
            with tarfile.open(archive) as sdist:
                sdist.extractall(to, filter="data")
            _hoist(next(to.glob(f"{pin.project}-*/")), to)
        else:
            self._unpack_debian(archive, to)

    def _unpack_debian(self, dsc: Path, to: Path) -> None:
        """Unpack a Debian source package: upstream's archive, then Debian's patches on it."""
        names = []
        for row in dsc.read_text().partition("Checksums-Sha256:\n")[2].splitlines():
            if not row.startswith(" "):
                break
            sha256, _size, name = row.split()
            if not name.endswith(".asc"):
                names.append(name)
                _verified(dsc.with_name(name), Pin("debian", "", "", name, sha256))
        for part, folder in ((".orig.tar", to / "orig"), (".debian.tar", to)):
            with tarfile.open(dsc.with_name(next(n for n in names if part in n))) as archive:
                archive.extractall(folder, filter="data")
        inner = list((to / "orig").iterdir())
        _hoist(inner[0] if len(inner) == 1 else to / "orig", to)
        shutil.rmtree(to / "orig", ignore_errors=True)
        patches = to / "debian" / "patches"
        for row in (patches / "series").read_text().splitlines():
            words = row.partition("#")[0].split()
            if words:
                command = ["patch", "-p1", "-s", "-f", "-i", patches / words[0]]
                self.cache.run(to / "unpack.log", command, cwd=to)

    def fetch(self, pin: Pin) -> Path:
        """Return the path of a verified archive, fetching it if it is nowhere yet."""
        for place in (*_given_folders(), self.folder):
            path = place / pin.file
            if path.exists():
                return _verified(path, pin)
        say(f"fetching {pin.file}")
        try:
            if pin.origin == "debian":
                self._apt_get(pin)
            else:
                self._pip(pin)
        except (BuildError, OSError) as error:
            raise BuildError(
                f"{error}\n{pin.file} could not be fetched. Put it (sha256 {pin.sha256}) into a "
                f"folder that WANTASTIC_SOURCES names, or correct its pin in {__file__}"
            ) from error
        return _verified(self.folder / pin.file, pin)

    def _pip(self, pin: Pin) -> None:
        form = ["--no-binary", ":all:", "--no-build-isolation"] if pin.origin == "sdist" else []
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *form]
        command += ["--dest", str(self.folder), f"{pin.project}=={pin.version}"]
        self.cache.run(self.folder / "fetch.log", command)

    def _apt_get(self, pin: Pin) -> None:
        """Ask for a source package by entries made from this machine's binary ones."""
        if not shutil.which("apt-get"):
            raise BuildError("apt-get is not here")
        lists = self.folder / "apt"
        (lists / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        listing = lists / "source.sources"
        options = [
            *("-o", f"Dir::Etc::sourcelist={listing}", "-o", "Dir::Etc::sourceparts=-"),
            *("-o", f"Dir::State::lists={lists / 'lists'}"),
        ]
        entries = debian_entries(pin.suite)
        if not listing.exists() or entries not in listing.read_text():
            with listing.open("a") as file:
                file.write(entries)
            self.cache.run(self.folder / "fetch.log", ["apt-get", *options, "update"])
        self.cache.run(
            self.folder / "fetch.log",
            ["apt-get", *options, "source", "--download-only", f"{pin.project}={pin.version}"],
            cwd=self.folder,
        )


def debian_entries(suite: str) -> str:
    """Return deb-src entries for `suite`: this machine's entries, with its own suite replaced."""
    release = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    entries = []
    for path in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")):
        for entry in path.read_text().split("\n\n"):
            if re.search(rf"^Suites:.*\b{release}\b", entry, re.M) and "Components: main" in entry:
                body = re.sub(r"^Types:.*$", "Types: deb-src", entry.strip(), flags=re.M)
                entries.append(
                    re.sub(
                        r"^(Suites:.*)$", lambda m: m[1].replace(release, suite), body, flags=re.M
                    )
                )
    if not entries:
        raise BuildError("no deb822 entry of Debian's main archive in /etc/apt/sources.list.d")
    return "\n\n".join(entries) + "\n\n"


def _given_folders() -> list[Path]:
    return [Path(p) for p in os.environ.get("WANTASTIC_SOURCES", "").split(":") if p]


def _verified(path: Path, pin: Pin) -> Path:
    found = hash_file(path)
    if found != pin.sha256:
        raise BuildError(f"{path} has sha256 {found}, not {pin.sha256}: remove it")
    return path


def _hoist(inner: Path, to: Path) -> None:
    """Move what an archive holds in its own top folder one level up."""
    for entry in inner.iterdir():
        entry.rename(to / entry.name)
    inner.rmdir()
