"""Compiles protos/auth.proto into wantastic/control/auth_pb2.py and its .pyi, when it is newer.

The result is built, never committed. Only messages are generated: generated service
code refuses every grpcio older than the one it came from, so wantastic/control/methods.py
holds the four methods instead. The message code refuses a protobuf older than its
compiler; grpcio-tools 1.85.1 and Buildroot's protoc are both 35.1, which asks for
protobuf 7.35.1 or newer.

A `protoc` in PATH serves where grpcio-tools is not installed (Buildroot). The .pyi comes
from mypy-protobuf and is left out where that is not installed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (ROOT / "protos" / "auth.proto", Path(__file__).resolve())
FOLDER = Path("wantastic") / "control"


def generate() -> None:
    """Bring the generated module up to date; raise CalledProcessError when protoc complains."""
    module = ROOT / FOLDER / "auth_pb2.py"
    typing = module.with_suffix(".pyi")
    plugin = shutil.which("protoc-gen-mypy", path=plugin_path())
    wanted = [module, typing] if plugin else [module]
    newest = max(source.stat().st_mtime for source in SOURCES)
    if all(path.exists() and path.stat().st_mtime >= newest for path in wanted):
        return
    command = [*compiler(), f"-I{FOLDER}={ROOT / 'protos'}", "--python_out=."]
    if plugin:
        command += [f"--plugin=protoc-gen-mypy={plugin}", "--mypy_out=quiet:."]
    subprocess.run([*command, f"{FOLDER}/auth.proto"], cwd=ROOT, check=True)
    for path in wanted:
        os.utime(path)


def compiler() -> list[str]:
    """Return the command that runs protoc."""
    if importlib.util.find_spec("grpc_tools"):
        return [sys.executable, "-m", "grpc_tools.protoc"]
    return [os.environ.get("PROTOC", "protoc")]


def plugin_path() -> str:
    """Return PATH with the running interpreter's own folder first."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


if __name__ == "__main__":
    generate()
