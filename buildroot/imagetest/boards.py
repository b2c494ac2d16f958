"""The emulated routers, as one table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Board:
    """One machine: how the emulator is called, and which of Debian's packages it runs."""

    name: str
    arch: str
    """The executable's CPU, a key of buildroot.static.arches.ARCHES."""
    debian: str
    kernel: str
    """A Debian package that depends on the newest kernel."""
    modules: tuple[str, ...]
    """Loaded in this order before the root is mounted; absent ones are built in."""
    console: str
    emulator: tuple[str, ...]
    disk: str
    cards: tuple[str, str]
    """One for each network."""


DISK_MODULES = ("crc16", "crc32c_generic", "libcrc32c", "mbcache", "jbd2", "ext4")
FILE_SYSTEMS = ("squashfs", "overlay")

BOARDS = {
    board.name: board
    for board in (
        Board(
            "malta",
            "mipsel",
            "mipsel",
            "linux-image-4kc-malta",
            ("ata_piix", "mii", "pcnet32", *DISK_MODULES, *FILE_SYSTEMS),
            "ttyS0",
            ("qemu-system-mipsel", "-M", "malta", "-cpu", "24Kf", "-vga", "none"),
            # Disks of the board's own controller. On its PCI bus, whose interrupts they shared
            # with the cards, they hung for ever in one run of many.
            "ide-hd",
            # Slots whose interrupts are not shared: two cards on one stop for ever after 50 MB.
            # An empty romfile: the card's boot ROM is not among Debian's files.
            ("pcnet,romfile=,addr=0x12", "pcnet,romfile=,addr=0x14"),
        ),
        Board(
            "virt",
            "armv7",
            "armhf",
            "linux-image-armmp",
            (
                *("virtio_mmio", "virtio_blk", "failover", "net_failover", "virtio_net"),
                *(*DISK_MODULES, *FILE_SYSTEMS),
            ),
            "ttyAMA0",
            ("qemu-system-arm", "-M", "virt", "-cpu", "cortex-a7"),
            "virtio-blk-device",
            ("virtio-net-device", "virtio-net-device"),
        ),
    )
}
MEMORY_MB = 64
