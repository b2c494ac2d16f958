"""The images that a machine boots: kernel, first stage, root file system, an empty flash."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from buildroot.imagetest.boards import Board
from buildroot.static.cache import BuildError, Cache, hash_file
from buildroot.static.sources import debian_entries

PACKAGE = Path(__file__).resolve().parents[1] / "package" / "wantasticd"
FLASH_MB = 16
APPLETS = """ash awk basename cat chmod cut date df dmesg echo free getty grep hostname ifconfig id
ip kill ln ls mkdir mount ping poweroff printf ps readlink reboot rm route sed sh sleep
start-stop-daemon stat sync syslogd tail touch true umount uname wget which"""

FIRST_STAGE = """#!/bin/busybox sh
# Loads what the root needs, lays the flash over the squashfs, and goes there.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
for module in $($b cat /modules/order); do
	[ -f "/modules/$module.ko" ] && $b insmod "/modules/$module.ko"
done
find_disks() {
	disks=
	for disk in sda sdb vda vdb; do
		[ -b /dev/$disk ] && disks="$disks $disk"
	done
	set -- $disks
	[ $# -eq 2 ]
}
tries=0
until find_disks || [ $tries -ge 100 ]; do
	$b sleep 0.1
	tries=$((tries + 1))
done
# The order of disks follows the bus: the squashfs is the one that mounts as one.
for disk in $disks; do
	if $b mount -t squashfs -o ro /dev/$disk /ro 2>/dev/null; then root=$disk; fi
done
for disk in $disks; do
	[ $disk = "$root" ] || $b mount -t ext4 /dev/$disk /rw
done
$b mkdir -p /rw/up /rw/work
$b mount -t overlay -o lowerdir=/ro,upperdir=/rw/up,workdir=/rw/work overlay /new
$b mount --move /dev /new/dev
$b umount /proc /sys
exec $b switch_root /new /sbin/init
"""
INITTAB = """::sysinit:/etc/init.d/rcS
{console}::respawn:-/bin/sh
"""
# Cards are known by their addresses: their order follows the bus.
START = """#!/bin/sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
mkdir -p /var/run /dev/pts
syslogd -O /tmp/log
hostname router
ip link set lo up
for card in $(ls /sys/class/net); do
	case $(cat /sys/class/net/$card/address) in
	*:01:02) network=1 ;;
	*:02:02) network=2 ;;
	*) continue ;;
	esac
	ip link set $card up
	ip addr add 10.77.$network.2/24 dev $card
done
ip route add default via 10.77.1.1
/etc/init.d/S60wantasticd start
echo "BOOTED $(cut -d' ' -f1 /proc/uptime)"
"""


@dataclass(frozen=True)
class Firmware:
    """The files that the emulator is given."""

    kernel: Path
    first_stage: Path
    root: Path


def packages(cache: Cache, board: Board) -> Path:
    """Return a folder with the newest kernel package and busybox of the board's CPU, unpacked.

    Kept until the cache is removed: another kernel makes no other test.
    """

    def recipe(folder: Path) -> None:
        log = folder / "log"
        (folder / "lists" / "partial").mkdir(parents=True)
        (folder / "cache").mkdir()
        entries = debian_entries("bookworm").replace("Types: deb-src", "Types: deb")
        entries = entries.replace("Types: deb", f"Types: deb\nArchitectures: {board.debian}")
        (folder / "apt.sources").write_text(entries)
        options = [
            *("-o", f"Dir::Etc::sourcelist={folder / 'apt.sources'}"),
            *("-o", "Dir::Etc::sourceparts=-", "-o", f"Dir::State::lists={folder / 'lists'}"),
            *("-o", f"Dir::Cache={folder / 'cache'}", "-o", f"APT::Architectures::={board.debian}"),
            *("-o", "APT::Sandbox::User=root"),
        ]
        # Some suites have no index for every CPU; what counts is that the packages are found.
        update = ["apt-get", *options, "update"]
        subprocess.run(update, capture_output=True, check=False)
        meta = f"{board.kernel}:{board.debian}"
        shown = subprocess.run(
            ["apt-cache", *options, "show", meta], capture_output=True, text=True, check=False
        )
        rows = [row for row in shown.stdout.splitlines() if row.startswith("Depends:")]
        if not rows:
            raise BuildError(f"no kernel for {board.name}: apt-get finds no {meta} {shown.stderr}")
        depends = rows[0]
        kernel = depends.split()[1].rstrip(",")
        for name in (kernel, "busybox-static"):
            get = ["apt-get", *options, "download", f"{name}:{board.debian}"]
            cache.run(log, get, cwd=folder)
        for archive in folder.glob("*.deb"):
            cache.run(log, ["dpkg-deb", "-x", archive, folder / "files"])
            archive.unlink()

    return cache.stage(f"image-packages-{board.name}", {"board": board.name}, recipe) / "files"


def build(cache: Cache, board: Board, executable: Path, settings: Mapping[str, str]) -> Firmware:
    """Return the images for an executable; `settings` are the files of /etc/wantastic by name."""
    modules = board.modules
    files = packages(cache, board)
    kernel = next((files / "boot").glob("vmlinuz-*"))
    script = PACKAGE / "S60wantasticd"
    inputs = {
        "packages": files.parent.name,
        "executable": hash_file(executable),
        "init script": hash_file(script),
        "settings": dict(settings),
        "texts": [FIRST_STAGE, INITTAB, START, APPLETS],
        "modules": modules,
    }

    def recipe(folder: Path) -> None:
        _first_stage(folder, modules, files)
        root = folder / "root"
        for name in ("bin", "sbin", "usr/bin", "usr/sbin", "etc/init.d", "var/lib", "var/run"):
            (root / name).mkdir(parents=True)
        for name in ("proc", "sys", "dev", "tmp", "root"):
            (root / name).mkdir()
        shutil.copy(files / "bin" / "busybox", root / "bin")
        for applet in APPLETS.split():
            (root / "bin" / applet).symlink_to("busybox")
        (root / "sbin" / "init").symlink_to("../bin/busybox")
        shutil.copy(executable, root / "usr/sbin/wantasticd")
        shutil.copy(script, root / "etc/init.d")
        (root / "etc/inittab").write_text(INITTAB.format(console=board.console))
        (root / "etc/init.d/rcS").write_text(START)
        (root / "etc/init.d/rcS").chmod(0o755)
        (root / "etc/wantastic").mkdir(mode=0o700)
        for name, text in settings.items():
            (root / "etc/wantastic" / name).write_text(text)
            (root / "etc/wantastic" / name).chmod(0o600)
        command = ["mksquashfs", root, folder / "root.squashfs", "-comp", "xz", "-all-root"]
        cache.run(folder / "log", [*command, "-noappend", "-quiet", "-no-progress"])

    folder = cache.stage(f"image-{board.name}", inputs, recipe)
    return Firmware(kernel, folder / "first.gz", folder / "root.squashfs")


def _first_stage(folder: Path, modules: Sequence[str], files: Path) -> None:
    tree = folder / "first"
    for name in ("bin", "modules", "dev", "proc", "sys", "ro", "rw", "new"):
        (tree / name).mkdir(parents=True)
    shutil.copy(files / "bin" / "busybox", tree / "bin")
    for module in modules:
        for path in (files / "lib" / "modules").rglob(f"{module}.ko"):
            shutil.copy(path, tree / "modules")
    (tree / "modules" / "order").write_text(" ".join(modules))
    (tree / "init").write_text(FIRST_STAGE)
    (tree / "init").chmod(0o755)
    names = "\n".join(str(p.relative_to(tree)) for p in sorted(tree.rglob("*")))
    archive = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet", "-R", "0:0"],
        input=names.encode(),
        cwd=tree,
        capture_output=True,
        check=True,
    ).stdout
    (folder / "first.gz").write_bytes(gzip.compress(archive, mtime=0))


def new_flash(path: Path) -> Path:
    """Make an empty ext4 file system: a router that was never started."""
    with path.open("wb") as file:
        file.truncate(FLASH_MB << 20)
    done = subprocess.run(["mke2fs", "-q", "-t", "ext4", path], capture_output=True, check=False)
    if done.returncode:
        raise BuildError(f"mke2fs: {done.stderr.decode()}")
    return path
