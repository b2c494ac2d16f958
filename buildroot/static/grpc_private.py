"""gRPC's archive with its BoringSSL out of the way: OpenSSL is linked too and has the same names.

Both define SSL_new and two thousand more. One archive would serve the other's callers, without a
word: only where both are needed for something else does the linker complain. Compiling gRPC a
second time with a header of #defines, as symbols.py does for small libraries, costs a quarter of an
hour; so the names are changed in the objects themselves, of those who define and who use them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from buildroot.static import grpc, objects, symbols
from buildroot.static.cache import BuildError, Cache, recipe_of
from buildroot.static.sources import Sources
from buildroot.static.toolchain import Toolchain

PREFIX = "wt_bssl_"
BORINGSSL = "third_party_boringssl"
# Mangled names of C++ have a namespace, and OpenSSL has none.
MANGLED = "_Z"


def build(cache: Cache, sources: Sources, tools: Toolchain) -> Path:
    """Return the archive."""
    common = grpc.build(cache, sources, tools)
    inputs = {"grpc": common.parent.name, "recipe": recipe_of(sys.modules[__name__], objects)}

    def recipe(folder: Path) -> None:
        found = [Path(row) for row in (common.parent / "objects").read_text().split()]
        own = [path for path in found if path.name.startswith(BORINGSSL)]
        if not own:
            raise BuildError(f"no object of BoringSSL in {common.parent}")
        names = {n for n in symbols.defined(own) if not n.startswith(MANGLED)}
        renamed = []
        for path in found:
            target = folder / path.name
            target.write_bytes(objects.rename(path.read_bytes(), names, PREFIX))
            renamed.append(target)
        (folder / "objects").write_text("\n".join(map(str, renamed)))
        command = [tools.ar, "rcs", folder / "libgrpc.a", f"@{folder / 'objects'}"]
        cache.run(folder / "log", command, env=tools.environment(cache))

    name = f"grpc-private-{tools.arch.name}"
    return cache.stage(name, inputs, recipe) / "libgrpc.a"
