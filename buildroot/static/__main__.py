"""The build program's command line: `python -m buildroot.static COMMAND --arch ARCH ...`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from buildroot.static import check, link, reproduce, testpython
from buildroot.static.arches import ARCHES, TRANSPORTS
from buildroot.static.cache import BuildError, Cache
from buildroot.static.rooms import ROOT
from buildroot.static.sources import PINS, Sources
from buildroot.static.toolchain import toolchain

# OpenWrt exports them for its target; here they would reach the host's interpreter as well, and no
# stage's hash knows of them. Flags belong into CC and CXX.
FOREIGN = ("CONFIG_SITE", "CFLAGS", "CPPFLAGS", "CXXFLAGS", "LDFLAGS")


def main() -> int:
    """Run one command; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m buildroot.static", description=__doc__)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="compilers at once")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("sources", help="fetch and verify everything, for building offline")
    test = commands.add_parser("test-qemu", help="run pytest under qemu-user")
    test.add_argument("--arch", choices=ARCHES, required=True)
    test.add_argument("arguments", nargs=argparse.REMAINDER, help="for pytest")
    binary = commands.add_parser("binary", help="build the executable")
    again = commands.add_parser("reproduce", help="build it twice and compare")
    for command in (binary, again):
        command.add_argument("--arch", choices=ARCHES, default="x86_64")
        command.add_argument("--transport", choices=TRANSPORTS, help="default: the CPU's")
        command.add_argument("--features", default="", help="-control,-proxy,-tools")
        command.add_argument("--python", choices=("c", "bytecode"), help="default: the CPU's")
    binary.add_argument("--update-modules", action="store_true", help="rewrite the module list")
    binary.add_argument("--check", action="store_true", help="run it, hold it to its budgets")
    binary.add_argument("--output", type=Path, default=ROOT / "dist")
    options = parser.parse_args()
    for name in FOREIGN:
        os.environ.pop(name, None)
    cache = Cache(
        Path(os.environ.get("WANTASTIC_CACHE") or ROOT / "build" / "cache").resolve(), options.jobs
    )
    sources = Sources(cache)
    try:
        if options.command == "sources":
            for pin in PINS.values():
                print(sources.fetch(pin))
            return 0
        tools = toolchain(cache, sources, ARCHES[options.arch])
        if options.command in {"binary", "reproduce"}:
            transport = options.transport or tools.arch.default_transport
            left_out = tuple(sorted(w[1:] for w in options.features.split(",") if w))
            python = options.python or tools.arch.default_python
            request = link.Request(transport, left_out, python == "c")
        if options.command == "reproduce":
            different = reproduce.differing(cache, tools.arch, request)
            print(f"differ: {', '.join(different)}" if different else "the same bytes")
            return 1 if different else 0
        if options.command == "binary":
            folder = link.build(cache, sources, tools, request, update=options.update_modules)
            name = f"wantasticd-{options.arch}-{transport}"
            path = link.deliver(folder, options.output, name)
            print(path)
            if not options.check:
                return 0
            ok = check.check(path, ARCHES[options.arch], transport, str(ROOT))
            return 0 if ok else 1
        arguments = [word for word in options.arguments if word != "--"]
        return testpython.run(cache, sources, tools, arguments or ["tests/native"])
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
