"""wireguard-go's own test script, run against us: roaming, NAT, sticky sources, big replies.

The script comes with wireguard-go's module and is run where the Go tool keeps it. Its
case of falling back to a new source address is one that wireguard-go itself fails.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import netns, peers

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.skipif(not netns.available(), reason="needs root, ip and /dev/net/tun"),
]


def script() -> Path:
    """Return the script's path inside Go's module cache, downloading the module if needed."""
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if go is None:
        pytest.skip("the script comes by the Go tool, which is not here")
    module = f"{peers.WIREGUARD_GO}@{peers.WIREGUARD_GO_VERSION}"
    done = subprocess.run(
        [go, "mod", "download", "-json", module], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"the module is not to be had: {done.stderr.strip()}")
    folder = subprocess.run(
        [go, "env", "GOMODCACHE"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return Path(folder) / module / "tests" / "netns.sh"


def test_the_script_passes(tmp_path: Path) -> None:
    program = tmp_path / "wantasticd"
    ours = peers.ours()
    command = " ".join(a for a in ours.argv if a != "-f")
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ours.env["PYTHONPATH"]} exec {command} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    # One gigabyte a case shows nothing more than a tenth of it, and CI has other work.
    text = script().read_text().replace("-n 1G", "-n 100M")
    copy = tmp_path / "netns.sh"
    copy.write_text(text)
    done = subprocess.run(
        ["timeout", "400", "bash", str(copy), str(program)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=430,
        check=False,
        env={**os.environ, "PATH": f"{os.environ['PATH']}:{Path(sys.executable).parent}"},
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
