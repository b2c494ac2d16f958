"""Has an executable enrol with the reference server, and fetches a page through its tunnel.

In a network namespace of its own, which has loopback only: the server, its gateway and the page run
from source on this machine's CPU, the executable as it is or under the emulator. So this is gRPC
over TLS by the transport that was built in, and a tunnel between this build and another one.

    first start    no key, a token: registers, shakes hands; the page by SOCKS5
    second start   the server refuses connections: the tunnel out of the stored configuration

Both agents are ended by SIGTERM and have to end with status 0. Where no tunnel can be, registering
alone is tried.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from buildroot.imagetest import backend
from buildroot.imagetest.backend import Backend
from buildroot.imagetest.machine import Failure, run

LOOPBACK = "127.0.0.1"
END_S = 60.0
SAID_LINES = 12


class Space:
    """One network namespace that is both networks."""

    def __init__(self) -> None:
        self._name = f"wtstatic-{os.getpid()}"

    def space(self, name: str) -> str:
        return self._name

    def __enter__(self) -> Space:
        run(f"ip netns add {self._name}")
        run(f"ip -n {self._name} link set lo up")
        return self

    def __exit__(self, *error: object) -> None:
        subprocess.run(["ip", "netns", "del", self._name], capture_output=True, check=False)


@contextmanager
def agent(space: Space, command: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the executable; what it said goes into the message of a failure."""
    environment = {**os.environ, "WANTASTIC_RUN_DIR": str(folder / "run")}
    log = folder / "agent.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            ["ip", "netns", "exec", space.space("lan"), *command],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        yield process
        process.terminate()
        if process.wait(END_S):
            raise Failure(f"the agent ended with {process.returncode}")
    except (Failure, subprocess.TimeoutExpired) as failure:
        asked = subprocess.run(
            [*command[: command.index("-config")], "-status"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        said = "\n".join(log.read_text().splitlines()[-SAID_LINES:])
        raise Failure(f"{failure}\n{said}\n{asked.stdout}{asked.stderr}") from failure
    finally:
        process.kill()
        process.wait()


def settings(folder: Path, token: str) -> Path:
    """Write the agent's configuration; return its path."""
    proxy = {
        "listen": f"{LOOPBACK}:{backend.SOCKS_PORT}",
        "user": backend.SOCKS_USER,
        "password": backend.SOCKS_PASSWORD,
    }
    config = {
        "state_dir": str(folder / "state"),
        "auth": {
            "server_url": f"{LOOPBACK}:{backend.GRPC_PORT}",
            "ca_file": str(folder / "ca.pem"),
            "token": token,
        },
        "interface": {"mode": "userspace", "listen_port": 0},
        "proxy": {"socks5": proxy},
    }
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    path.chmod(0o600)
    return path


@contextmanager
def server(command: Sequence[str]) -> Iterator[tuple[Space, Path, Backend, list[str]]]:
    """Start the server; yield where it is, a folder, itself and the agent's command line."""
    with Space() as space, tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        back = Backend(space, folder, LOOPBACK, LOOPBACK)
        try:
            (folder / "ca.pem").write_text(back.ca)
            yield space, folder, back, [*command, "-config", str(settings(folder, back.token))]
        finally:
            back.close()


def register(command: Sequence[str], timeout_s: float) -> float:
    """Run a first start; return the seconds until the server had registered the device."""
    with server(command) as (space, folder, back, started):
        begin = time.monotonic()
        with agent(space, started, folder):
            back.wait_for_devices(1, timeout_s)
            return time.monotonic() - begin


def enrol(command: Sequence[str], timeout_s: float, settle_s: float) -> tuple[float, float, int]:
    """Run both starts; return seconds to the page of each, and the process to be weighed.

    The second number is the resident memory in KB, `settle_s` after the first page.
    """
    with server(command) as (space, folder, back, started):
        begin = time.monotonic()
        with agent(space, started, folder) as process:
            back.wait_for_page(timeout_s)
            first_s = time.monotonic() - begin
            time.sleep(settle_s)
            resident_kb = resident(process.pid)
        if len(back.devices()) != 1:
            raise Failure(f"the server has other devices: {back.devices()}")
        back.answer(False)
        begin = time.monotonic()
        with agent(space, started, folder):
            back.wait_for_page(timeout_s)
            again_s = time.monotonic() - begin
        if len(back.devices()) != 1:
            raise Failure("it registered once more")
    return first_s, again_s, resident_kb


def resident(pid: int) -> int:
    """Return a process's VmRSS in KB."""
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(row.split()[1] for row in rows if row.startswith("VmRSS")))
