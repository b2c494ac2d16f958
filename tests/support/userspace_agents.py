"""Two agents as processes without privileges or TUN, joined over loopback; and what is behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cext.crypto.primitives import x25519_public
from tests.support.agent import PROGRAM
from tests.support.engine_pair import secret
from tests.support.peers import ROOT
from wantastic.config.keys import encode_key

NOBODY = 65534
# A user without a name, a group or a capability, and no way to get one.
UNPRIVILEGED = (
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
    *("--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"),
)


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def eventually(what: Callable[[], object], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@dataclass
class UserAgent:
    """`wantasticd -config FILE` as nobody, at 10.9.0.NUMBER and fd09::NUMBER."""

    folder: Path
    number: int
    port: int
    peer_port: int
    config: dict[str, Any]
    flags: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = None
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def path(self) -> Path:
        return self.folder / "config.json"

    def start(self) -> None:
        other = 3 - self.number
        config = {
            "private_key": encode_key(secret(self.number)),
            "server": {
                "endpoint": f"127.0.0.1:{self.peer_port}",
                "public_key": encode_key(x25519_public(secret(other))),
                "allowed_ips": [f"10.9.0.{other}/32", f"fd09::{other}/128"],
            },
            "interface": {
                "name": f"uu{os.getpid() % 100000}n{self.number}",
                "addresses": [f"10.9.0.{self.number}/32", f"fd09::{self.number}/128"],
                "listen_port": self.port,
                "strict_port": True,
            },
            "state_dir": str(self.folder / "state"),
            **self.config,
        }
        self.path.touch(mode=0o600)
        self.path.write_text(json.dumps(config))
        for path in (self.folder, self.path):
            os.chown(path, NOBODY, NOBODY)
        self.environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "WANTASTIC_RUN_DIR": str(self.folder),
        }
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*UNPRIVILEGED, *PROGRAM, "-config", str(self.path), *self.flags],
                env=self.environ,
                cwd=ROOT,
                stderr=log,
            )
        eventually(lambda: "tunnel is up" in self.log or self.process.poll() is not None)  # type: ignore[union-attr]
        assert self.process.poll() is None, self.log

    def stop(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
            self.process.kill()
            self.process.wait()

    def allocated_bytes(self) -> int:
        """Return what it has in memory of its own, without the pages of the programs' files:
        those the kernel takes and gives back as it likes."""
        assert self.process
        rows = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        (anonymous,) = (row.split()[1] for row in rows if row.startswith("Anonymous:"))
        return int(anonymous) * 1024


@contextmanager
def two_agents(
    near: dict[str, Any], far: dict[str, Any], flags: tuple[Sequence[str], Sequence[str]] = ((), ())
) -> Iterator[tuple[UserAgent, UserAgent]]:
    """Run both until the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="wantastic-agents-"))
    folder.chmod(0o755)
    ports = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_DGRAM)
    agents = []
    try:
        for index, config in enumerate((near, far)):
            place = folder / str(1 + index)
            place.mkdir(mode=0o700)
            made = UserAgent(place, 1 + index, ports[index], ports[1 - index], config, flags[index])
            agents.append(made)
            made.start()
        yield agents[0], agents[1]
        for agent in agents:
            assert agent.process
            assert agent.process.poll() is None, agent.log
    finally:
        for agent in agents:
            agent.stop()
        logs = [agent.log for agent in agents]
        shutil.rmtree(folder)
    assert not any("Traceback" in log or "unforeseen" in log for log in logs), logs
