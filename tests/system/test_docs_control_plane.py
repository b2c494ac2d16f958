"""The examples of docs/control-plane.md, run as they stand against the reference server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support import server as support

ROOT = Path(__file__).resolve().parents[2]


def blocks(language: str) -> list[str]:
    text = (ROOT / "docs" / "control-plane.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def test_the_python_example_works_with_messages_compiled_as_described(tmp_path: Path) -> None:
    (compile_line,) = [b for b in blocks("sh") if "grpc_tools.protoc" in b]
    (tmp_path / "protos").mkdir()
    (tmp_path / "protos" / "auth.proto").write_bytes((ROOT / "protos/auth.proto").read_bytes())
    argv = [sys.executable, *compile_line.split()[1:]]
    subprocess.run(argv, cwd=tmp_path, check=True)
    (example,) = blocks("python")
    state = tmp_path / "state"
    public_key = support.set_gateway(state)
    support.operate(state, "tenant", "create", "default", "--ipv4", "10.9.0.0/16")
    with support.serving(state, "--insecure") as server:
        environment = os.environ | {
            "SERVER": server.target,
            "PUBLIC_KEY": support.key(),
            "ENROLMENT_TOKEN": support.new_token(state),
        }
        done = subprocess.run(
            [sys.executable, "-c", example],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"gateway {public_key} 192.0.2.1:51820"
    assert re.fullmatch(r"version \d+ \['10\.9\.\d+\.\d+/32'.*\]", lines[1])
    assert lines[2] == "not modified True"
