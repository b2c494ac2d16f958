"""A reference server in its own process, an operator at its command line, and plain gRPC calls."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc

from wantastic.control import auth_pb2 as pb
from wantastic.control import methods
from wantastic.server import main

COMMAND = [sys.executable, "-m", "wantastic.server.main"]
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 20


def key() -> str:
    """Return a random WireGuard public key; nobody needs the private one here."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


class ServerProcess:
    """One running `wantastic-server serve`."""

    def __init__(self, state: Path, process: subprocess.Popen[str], log: Path) -> None:
        self.state = state
        self.process = process
        self.log = log
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            process.wait(START_TIMEOUT_S)
            raise RuntimeError(f"the server did not start:\n{log.read_text()}")
        self.ports: dict[str, Any] = json.loads(line)

    @property
    def target(self) -> str:
        """Where its gRPC listens."""
        return f"127.0.0.1:{self.ports['grpc']}"

    def stop(self) -> int:
        """Drain and stop; return the exit code."""
        self.process.terminate()
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@contextlib.contextmanager
def serving(
    state: Path,
    *options: str,
    database: str = "",
    name: str = "server",
    program: Sequence[str] = COMMAND,
) -> Iterator[ServerProcess]:
    """Run a server on loopback ports of its own choice."""
    log = state.parent / f"{name}.log"
    command = [*program, "serve", "--json", "--state", str(state), "--listen", "127.0.0.1:0"]
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*command, *options],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=_environment(database),
        )
    server = None
    try:
        server = ServerProcess(state, process, log)
        yield server
    finally:
        if process.poll() is None:
            if server is None:
                process.kill()
                process.wait()
            else:
                server.stop()
        assert process.stdout is not None
        process.stdout.close()


def operate(state: Path, *arguments: str, database: str = "") -> list[dict[str, Any]]:
    """Run one operator's command in this process, beside the server; return its rows."""
    out, errors = io.StringIO(), io.StringIO()
    command = [*arguments, "--json", "--state", str(state)]
    if database:
        command += ["--database", database]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = main.main(command)
    if code:
        raise RuntimeError(errors.getvalue().strip())
    rows: list[dict[str, Any]] = json.loads(out.getvalue())
    return rows


def new_token(state: Path, *options: str, database: str = "") -> str:
    """Make an enrolment token."""
    return str(operate(state, "token", "create", *options, database=database)[0]["token"])


def set_gateway(state: Path, database: str = "") -> str:
    """Announce a gateway that does not exist; return its public key."""
    public_key = key()
    operate(
        state,
        "gateway",
        "set",
        "--public-key",
        public_key,
        "--endpoint",
        "192.0.2.1:51820",
        database=database,
    )
    return public_key


class Caller:
    """Calls the contract's methods over one channel."""

    def __init__(self, channel: grpc.Channel, prefix: str = methods.PREFIXES[0]) -> None:
        self._calls: dict[str, Any] = {}
        for method in methods.METHODS:
            make = channel.unary_stream if method.streams else channel.unary_unary
            self._calls[method.name] = make(
                prefix + method.name,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.reply.FromString,
            )

    def call(self, method: str, request: Any, token: str, timeout_s: float = 20) -> Any:
        """Call a method; a stream's iterator for WatchConfiguration."""
        return self._calls[method](request, timeout=timeout_s, metadata=bearer(token))

    def register(
        self, token: str, device_id: str, public_key: str, **more: Any
    ) -> pb.RegisterDeviceResponse:
        """RegisterDevice."""
        request = pb.RegisterDeviceRequest(device_id=device_id, public_key=public_key, **more)
        reply: pb.RegisterDeviceResponse = self.call("RegisterDevice", request, token)
        return reply

    def configuration(self, token: str, etag: str = "", **more: Any) -> pb.GetConfigurationResponse:
        """GetConfiguration."""
        request = pb.GetConfigurationRequest(known_etag=etag, **more)
        reply: pb.GetConfigurationResponse = self.call("GetConfiguration", request, token)
        return reply


def bearer(token: str) -> list[tuple[str, str]]:
    """Return the metadata that carries a token."""
    return [(methods.AUTHORIZATION, f"Bearer {token}")]


def error_of(error: grpc.RpcError) -> pb.Error:
    """Return the contract's error of a failed call."""
    for name, value in error.trailing_metadata() or ():  # type: ignore[attr-defined]
        if name == methods.ERROR_TRAILER:
            return pb.Error.FromString(value)
    return pb.Error()


def eventually(condition: Any, timeout_s: float = 10.0) -> bool:
    """Ask again until it is so."""
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        if condition():
            return True
        time.sleep(0.05)
    return bool(condition())


def _environment(database: str) -> dict[str, str]:
    environment = dict(os.environ)
    environment.pop("WANTASTIC_DATABASE", None)
    if database:
        environment["WANTASTIC_DATABASE"] = database
    return environment
