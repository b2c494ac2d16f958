"""`make run`, the whole system on one machine: it works for anybody, and ends cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.peers import ROOT
from tests.support.server import eventually
from wantastic.server.demo import __main__ as demo
from wantastic.server.demo import programs

MODULE = "wantastic.server.demo"
NOBODY = 65534
TIMEOUT_S = 90


@dataclass(frozen=True)
class Nobody:
    """A user without privileges, before a copy of what runs and a folder of its own.

    As root, which CI is: in a mount namespace, where interpreter and packages are seen in
    places that anybody may read, wherever root keeps them.
    """

    folder: Path

    @property
    def files(self) -> Path:
        return self.folder / "files"

    @property
    def python(self) -> str:
        if os.geteuid() != 0:
            return sys.executable
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return str(self.folder / "python" / "bin" / version)

    def command(self, *arguments: str) -> list[str]:
        if os.geteuid() != 0:
            return list(arguments)
        packages = Path(pytest.__file__).parents[1]
        script = (
            f"mount --bind {sys.base_prefix} {self.folder}/python && "
            f"mount --bind {packages} {self.folder}/packages && "
            f"exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups --no-new-privs "
            '--bounding-set=-all "$@"'
        )
        return ["unshare", "-m", "sh", "-c", script, "sh", *arguments]

    @property
    def environment(self) -> dict[str, str]:
        found = {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "PYTHONPATH": f"{self.folder}:{self.folder}/packages",
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(self.files),
            # The poorest of terminals.
            "LC_ALL": "C",
            "PYTHONCOERCECLOCALE": "0",
            "PYTHONUTF8": "0",
        }
        if os.geteuid() == 0:
            found["PYTHONHOME"] = f"{self.folder}/python"
            found["LD_LIBRARY_PATH"] = f"{self.folder}/python/lib"
        return found


@pytest.fixture
def nobody() -> Iterator[Nobody]:
    with tempfile.TemporaryDirectory(prefix="make-run-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        skipped = shutil.ignore_patterns("__pycache__", "*.c", "*.h", "*.pyx", "*.pxd")
        for room in ("wantastic", "cext"):
            shutil.copytree(ROOT / room, folder / room, ignore=skipped)
        shutil.copy(ROOT / "Makefile", folder)
        for name in ("files", "python", "packages"):
            (folder / name).mkdir()
        if os.geteuid() == 0:
            os.chown(folder / "files", NOBODY, NOBODY)
        yield Nobody(folder)


def of_session(word: str) -> list[int]:
    """Return the processes that have a word among their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and word.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def test_anybody_fetches_the_page_and_nothing_is_left(nobody: Nobody) -> None:
    done = subprocess.run(
        nobody.command(nobody.python, "-m", MODULE, "--json", "--seconds", "2.5"),
        cwd="/",
        env=nobody.environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert last["agent"]["state"] == "running", last
    assert last["agent"]["conditions"] == []
    web = last["web"]
    assert web["fetched"] == web["asked"] >= 3
    assert web["wrong"] == 0
    # What was fetched came through the tunnel.
    assert last["peer"]["rx_bytes"] > (web["fetched"] - 1) * web["last_bytes"] >= 2 * 256 * 1024
    (device,) = last["server"]["devices"]
    assert (device["device_id"], device["status"]) == (programs.DEVICE, "active")
    assert device["ipv4"] == last["agent"]["address"]
    assert last["server"]["gateway_peers"] == 1
    assert list(nobody.files.iterdir()) == []
    assert of_session(str(nobody.folder)) == []


def test_ctrl_c_at_make_run_ends_everything_with_status_0(nobody: Nobody) -> None:
    """A terminal sends Ctrl-C to make as well, which would then fail by itself."""
    make = ["make", "--no-print-directory", "-C", str(nobody.folder), "-o", "build", "run"]
    command, environment = nobody.command(*make, f"PY={nobody.python}"), nobody.environment
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(command[0], command, environment)
    text, pressed, deadline = b"", False, time.monotonic() + TIMEOUT_S
    with contextlib.suppress(OSError):  # EIO: everybody has closed the other side
        while time.monotonic() < deadline and (piece := os.read(terminal, 65536)):
            text += piece
            # The page was there, and so was the table twice.
            if not pressed and text.count(b"Ctrl-C ends everything") >= 2:
                os.write(terminal, b"\x03")
                pressed = True
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    shown = text.decode()
    assert os.waitstatus_to_exitcode(status) == 0, shown
    assert "Hello from behind the gateway" in shown
    assert "agent ended with status 0, server ended with status 0" in shown
    assert "Traceback" not in shown
    screens = shown.partition("\x1b[H\x1b[J")[2].replace("\x1b[H\x1b[J", "")
    assert all(len(line.rstrip()) <= 80 for line in screens.splitlines())
    for word in ("THE DEVICE", "running", "handshake", "THE SERVER", programs.DEVICE, "fetched"):
        assert word in screens
    assert list(nobody.files.iterdir()) == []


def test_programs_end_when_we_are_killed(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", MODULE, "--state", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "wantasticd -config" in line:
            break
    assert len(of_session(str(tmp_path))) == 3
    process.kill()
    process.wait()
    process.stdout.close()
    assert eventually(lambda: of_session(str(tmp_path)) == [], 20)


def test_a_taken_proxy_port_is_given_up_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    free_port = programs.free_port
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = [taken.getsockname()[1]]
        monkeypatch.setattr(programs, "free_port", lambda: wanted.pop() if wanted else free_port())
        assert demo.main(["--json", "--seconds", "1.5", "--state", str(tmp_path)]) == 0
    assert wanted == []
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["web"]["fetched"] >= 2
    assert last["agent"]["conditions"] == []


def test_a_program_that_dies_is_named_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(programs, "AGENT_MODULE", "wantastic.no_such_program")
    assert demo.main(["--state", str(tmp_path)]) == 1
    shown = capsys.readouterr().err
    assert "the agent ended by itself, with status 1" in shown
    assert "No module named wantastic.no_such_program" in shown


def test_a_signal_while_it_starts_ends_it_too(tmp_path: Path) -> None:
    async def main() -> int:
        options = demo.options_of(["--state", str(tmp_path)])
        task = asyncio.ensure_future(demo.show(tmp_path, options))
        while not (tmp_path / "server.log").exists():
            await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        return await task

    assert asyncio.run(main()) == 0
    assert of_session(str(tmp_path)) == []
