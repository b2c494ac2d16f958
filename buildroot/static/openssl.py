"""OpenSSL as static archives, cut down to what TLS 1.2/1.3, the AEAD baseline and hashes need.

Traps, each of which silently yields wrong results:
- LLVM's assembler expands `la reg, label` of a label that is defined further down as if it were
  global, and then relocates it against the section: the table addresses of the MIPS AES and SHA
  assembly come out wrong ("can't find matching R_MIPS_LO16" is only a warning). Declaring the
  tables global and hidden first makes both ends agree; the warning is an error here, and
  binary-check has the finished executable compute known answers.
- Configure's GCC-only machine flags (-mabi=32, -mips32r2) contradict the -target of a clang.
- zig's runtime library has the __atomic_* operations, yet not __atomic_is_lock_free, which is
  asked for 64-bit values on 32-bit CPUs: runtime/atomic.c answers.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from buildroot.static.arches import Arch
from buildroot.static.cache import BuildError, Cache, recipe_of
from buildroot.static.sources import Sources
from buildroot.static.toolchain import Toolchain

# Left out: what neither TLS 1.2/1.3 with certificates nor our AEAD baseline can reach.
WITHOUT = """
    shared dso engine dynamic-engine static-engine afalgeng padlockeng capieng loadereng module
    legacy apps tests docs async autoload-config ui-console comp http ocsp ct cms cmp ts srp psk
    nextprotoneg srtp dtls quic ssl-trace tls1 tls1_1 tls-deprecated-ec dgram filenames
    thread-pool default-thread-pool secure-memory multiblock pic dh dsa des ec2m gost sm2 sm3 sm4
    aria bf camellia cast idea seed rc2 rc4 md4 mdc2 rmd160 whirlpool siphash siv ocb cmac argon2
    rfc3779 ml-kem ml-dsa slh-dsa
    """
# Tables that the MIPS assembly loads with `la` before their definition.
MIPS_TABLES = {
    "crypto/aes/aes-mips.S": ("AES_Te", "AES_Td", "AES_Te4", "AES_Td4"),
    "crypto/sha/sha256-mips.S": ("K256",),
}
LOST_RELOCATION = "R_MIPS_LO16"


def build(cache: Cache, sources: Sources, tools: Toolchain) -> Path:
    """Return a folder with libssl.a, libcrypto.a and include/ (beside the source's own)."""
    source = sources.unpack("openssl")
    inputs = {
        "source": sources.pin("openssl").sha256,
        "tools": tools.identity,
        "recipe": recipe_of(sys.modules[__name__]),
    }
    return cache.stage(
        f"openssl-{tools.arch.name}", inputs, lambda folder: _build(cache, source, tools, folder)
    )


def include_flags(cache: Cache, sources: Sources, tools: Toolchain) -> tuple[str, ...]:
    """Return the -I flags for OpenSSL's generated and own headers."""
    return (
        f"-I{build(cache, sources, tools) / 'include'}",
        f"-I{sources.unpack('openssl') / 'include'}",
    )


def _build(cache: Cache, source: Path, tools: Toolchain, folder: Path) -> None:
    log = folder / "log"
    flags = [f for f in tools.common_flags() if f not in {"-Os", "-w"}]
    env = {
        **tools.environment(cache),
        "CC": tools.cc,
        "CXX": tools.cxx,
        "AR": tools.ar,
        "RANLIB": tools.ranlib,
        "CFLAGS": " ".join(["-O2", *flags]),
    }
    # A relative path: Configure's own command line is compiled in.
    configure = Path("..") / source.name / "Configure"
    options = [f"no-{word}" for word in WITHOUT.split()]
    target = tools.arch.openssl_target
    cache.run(
        log,
        ["perl", configure, target, "--prefix=/usr", "--openssldir=/etc/ssl", *options],
        cwd=folder,
        env=env,
    )
    makefile = folder / "Makefile"
    makefile.write_text(
        re.sub(r"^(CNF_CFLAGS=.*)$", _without_gcc_flags, makefile.read_text(), flags=re.M)
    )
    cache.run(log, ["make", f"-j{cache.jobs}", "build_generated"], cwd=folder, env=env)
    if tools.arch.openssl_target == "linux-mips32":
        _make_tables_global(cache, tools.arch, folder, env)
    cache.run(log, ["make", f"-j{cache.jobs}", "build_libs"], cwd=folder, env=env)
    if LOST_RELOCATION in log.read_text(errors="replace"):
        raise BuildError(f"the assembler lost a relocation, tables would be wrong: see {log}")


def _without_gcc_flags(line: re.Match[str]) -> str:
    return re.sub(r" -(mabi=32|mips\w+|m64|m32)\b", "", line[0])


def _make_tables_global(cache: Cache, arch: Arch, folder: Path, env: dict[str, str]) -> None:
    for name, tables in MIPS_TABLES.items():
        path = folder / name
        cache.run(folder / "log", ["make", name], cwd=folder, env=env)
        text = path.read_text()
        lines = [f".globl {t}\n.hidden {t}\n" for t in tables if re.search(rf"^{t}:", text, re.M)]
        if not lines:
            raise BuildError(f"{name} has none of the tables {tables} ({arch.name})")
        path.write_text("".join(lines) + text)
