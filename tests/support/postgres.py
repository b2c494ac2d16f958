"""A PostgreSQL cluster of a test's own: temporary folder, Unix socket and loopback, gone after."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BINARIES = Path("/usr/lib/postgresql/15/bin")
USER = "postgres"


class Cluster:
    """A running cluster; new_database() gives an empty database."""

    def __init__(self, folder: Path, port: int, password: str) -> None:
        self.folder = folder
        self.port = port
        self._password = password

    def new_database(self) -> str:
        """Return the URL of a new database."""
        name = f"t{secrets.token_hex(4)}"
        self._psql(f"CREATE DATABASE {name}")
        return f"postgresql://{USER}:{self._password}@127.0.0.1:{self.port}/{name}"

    def cut_connections(self) -> None:
        """End every connection, as a failing network would."""
        others = "FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        self._psql(f"SELECT pg_terminate_backend(pid) {others}")

    def _psql(self, statement: str) -> None:
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", "postgres"]
        subprocess.run(
            [BINARIES / "psql", "-q", *where, "-c", statement],
            check=True,
            capture_output=True,
            env={**os.environ, "PGPASSWORD": self._password},
        )


@contextmanager
def running() -> Iterator[Cluster]:
    """Make and start a cluster as the user postgres, who is the only one it may run as."""
    if not (BINARIES / "pg_ctl").exists():
        pytest.skip("install postgresql-15")
    folder = Path(tempfile.mkdtemp(prefix="wantastic-postgres-"))
    password = secrets.token_hex(16)
    try:
        (folder / "password").write_text(password)
        _give_to_postgres(folder)
        data, log = folder / "data", folder / "log"
        _run("initdb", "-D", data, "-U", USER, "-A", "scram-sha-256", "--no-sync", "-E", "UTF8")
        port = _free_port()
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c shared_buffers=32MB"
        _run("pg_ctl", "-D", data, "-l", log, "-w", "-o", options, "start")
        try:
            yield Cluster(folder, port, password)
        finally:
            _run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(program: str, *arguments: object) -> None:
    command = [str(BINARIES / program), *map(str, arguments)]
    if program == "initdb":
        command.append(f"--pwfile={Path(str(arguments[1])).parent / 'password'}")
    if os.geteuid() == 0:
        command = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        raise RuntimeError(f"{program}: {done.stdout}{done.stderr}")


def _give_to_postgres(folder: Path) -> None:
    if os.geteuid() != 0:
        return
    owner = pwd.getpwnam(USER)
    for path in (folder, folder / "password"):
        os.chown(path, owner.pw_uid, owner.pw_gid)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
