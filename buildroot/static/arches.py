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
    qemu_cpu: str
    """The least CPU that the executable is for; an emulator's own default is the greatest."""
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
            "qemu64",
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
            "cortex-a53",
            "grpcio",
            "c",
        ),
        # Every ARMv7-A CPU with a floating-point unit: a Cortex-A9 cannot divide as a Cortex-A7
        # can, and some have no NEON. Where it is, our cryptography and OpenSSL's find it.
        Arch(
            "armv7",
            "arm-linux-musleabihf",
            "arm-linux-musleabihf",
            "generic+v7a+vfp3d16-neon",
            "linux-armv4",
            32,
            False,
            "qemu-arm",
            "cortex-a9",
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
            "24Kf",
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
            "24Kf",
            "slim",
            "bytecode",
        ),
    )
}

TRANSPORTS = ("grpcio", "slim")
