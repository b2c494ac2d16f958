"""The CPUs that an executable can be built for, as one table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Arch:
    """One target CPU, in the spelling of each tool that has to be told."""

    name: str
    triple: str
    """What configure scripts take as --host."""
    zig_target: str
    zig_cpu: str
    openssl_target: str
    bits: int
    big_endian: bool
    qemu: str
    """qemu-user's program for it."""
    default_transport: str
    default_python: str
    """What wantastic/ becomes: "c" starts sooner, "bytecode" is smaller (docs/building.md)."""


ARCHES = {
    arch.name: arch
    for arch in (
        Arch(
            "x86_64",
            "x86_64-linux-musl",
            "x86_64-linux-musl",
            "x86_64",
            "linux-x86_64",
            64,
            False,
            "qemu-x86_64",
            "grpcio",
            "c",
        ),
        Arch(
            "aarch64",
            "aarch64-linux-musl",
            "aarch64-linux-musl",
            "generic",
            "linux-aarch64",
            64,
            False,
            "qemu-aarch64",
            "grpcio",
            "c",
        ),
        Arch(
            "armv7",
            "arm-linux-musleabihf",
            "arm-linux-musleabihf",
            "cortex_a7",
            "linux-armv4",
            32,
            False,
            "qemu-arm",
            "grpcio",
            "bytecode",
        ),
        # MIPS routers without a floating-point unit are the rule: soft float throughout.
        Arch(
            "mipsel",
            "mipsel-linux-musl",
            "mipsel-linux-musleabi",
            "mips32r2+soft_float",
            "linux-mips32",
            32,
            False,
            "qemu-mipsel",
            "grpcio",
            "bytecode",
        ),
        # BoringSSL, which grpcio is made with, refuses big-endian CPUs: slim only.
        Arch(
            "mips",
            "mips-linux-musl",
            "mips-linux-musleabi",
            "mips32r2+soft_float",
            "linux-mips32",
            32,
            True,
            "qemu-mips",
            "slim",
            "bytecode",
        ),
    )
}

TRANSPORTS = ("grpcio", "slim")
