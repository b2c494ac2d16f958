"""AuthClient and what it stands on: fall-over of paths and addresses, names, errors, tokens."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.control_peers import authority
from tests.support.fake_control import FakeServer, FakeTransport
from wantastic.config.model import HostPort
from wantastic.control import auth_pb2 as pb
from wantastic.control import methods, wire
from wantastic.control.client import AuthClient, Server
from wantastic.control.credentials import Credentials
from wantastic.control.enrol import read_token_file, token_argument
from wantastic.control.errors import REMEDIES, ControlError, LocalError, RemoteError, TransportError
from wantastic.control.resolve import Resolver
from wantastic.control.tls import read_roots
from wantastic.control.transport import Address, ConnectFailed, StatusError

SERVER = HostPort("control.example", 443)


class Memory:
    def __init__(self, **known: tuple[str, ...]) -> None:
        self.known = {name.replace("_", "."): found for name, found in known.items()}
        self.writes = 0

    def last_good(self, name: str) -> tuple[str, ...]:
        return self.known.get(name, ())

    def remember(self, name: str, addresses: tuple[str, ...]) -> None:
        self.known[name] = addresses
        self.writes += 1


def lookup(*answers: Any) -> Callable[[str], Any]:
    queue = list(answers)

    async def look(name: str) -> list[str]:
        answer = queue.pop(0) if len(queue) > 1 else queue[0]
        if isinstance(answer, Exception):
            raise answer
        return list(answer)

    return look


NO_NAME = socket.gaierror(socket.EAI_NONAME, "no")
LATER = socket.gaierror(socket.EAI_AGAIN, "later")


@pytest.mark.parametrize(
    ("row", "answer", "known", "expected"),
    [
        (1, ["192.0.2.1"], (), ["192.0.2.1"]),
        (2, ["192.0.2.1", "2001:db8::1", "192.0.2.2"], (),
         ["2001:db8::1", "192.0.2.1", "192.0.2.2"]),
        (3, ["192.0.2.1", "2001:db8::1"], ("192.0.2.1",), ["192.0.2.1", "2001:db8::1"]),
        (4, LATER, ("192.0.2.9", "2001:db8::9"), ["192.0.2.9", "2001:db8::9"]),
        (5, [], ("192.0.2.9",), ["192.0.2.9"]),
        (6, LATER, (), "name_lookup"),
        (7, NO_NAME, (), "name_not_found"),
        (8, TimeoutError(), ("192.0.2.9",), ["192.0.2.9"]),
        (9, ["192.0.2.1"] * 3, (), ["192.0.2.1"]),
    ],
)  # fmt: skip
def test_names(row: int, answer: Any, known: tuple[str, ...], expected: Any) -> None:
    async def main() -> None:
        resolver = Resolver(Memory(control_example=known), lookup(answer))
        if isinstance(expected, str):
            with pytest.raises(TransportError) as caught:
                await resolver.addresses(SERVER)
            assert caught.value.code == expected
        else:
            found = await resolver.addresses(SERVER)
            assert [a.host for a in found] == expected

    asyncio.run(main())


def test_numeric_hosts_are_not_looked_up() -> None:
    async def main() -> None:
        resolver = Resolver(Memory(), lookup(AssertionError("asked")))
        for host in ("192.0.2.1", "2001:db8::1", "fe80::1%eth0"):
            assert await resolver.addresses(HostPort(host, 5)) == (Address(host, 5),)

    asyncio.run(main())


class Cloud:
    """Several addresses of one server, some of them dead."""

    def __init__(self, server: FakeServer, alive: set[str]) -> None:
        self.server, self.alive = server, alive
        self.tried: list[str] = []

    async def connect(self, address: Address, *rest: Any) -> FakeTransport:
        self.tried.append(address.host)
        if address.host not in self.alive:
            raise ConnectFailed("dead")
        return FakeTransport(self.server)


def client_of(cloud: Cloud, memory: Memory, *addresses: str) -> AuthClient:
    server = Server(SERVER, authority().pem)
    return AuthClient(server, cloud.connect, Resolver(memory, lookup(addresses)))


async def ask(client: AuthClient) -> Any:
    request = pb.RegisterDeviceRequest(device_id="d", public_key="k")
    return await client.call(methods.REGISTER_DEVICE, request, "reusable")


def test_every_address_is_tried_and_the_good_one_remembered(monkeypatch: Any) -> None:
    monkeypatch.setattr("tests.support.fake_control.wall", lambda: 0.0)

    async def main() -> None:
        cloud = Cloud(FakeServer(enrolment_tokens={"reusable": None}), {"192.0.2.3"})
        memory = Memory()
        client = client_of(cloud, memory, "192.0.2.1", "2001:db8::2", "192.0.2.3")
        assert (await ask(client)).success
        assert cloud.tried == ["2001:db8::2", "192.0.2.1", "192.0.2.3"]
        assert memory.known["control.example"] == ("192.0.2.3",)
        # A new connection begins with the address that worked, and writes nothing.
        await client.close()
        assert (await ask(client)).success
        assert cloud.tried[3:] == ["192.0.2.3"]
        assert memory.writes == 1

    asyncio.run(main())


def test_the_path_falls_over_once_and_back(monkeypatch: Any) -> None:
    monkeypatch.setattr("tests.support.fake_control.wall", lambda: 0.0)

    async def main() -> None:
        server = FakeServer(enrolment_tokens={"reusable": None}, prefix=methods.PREFIXES[1])
        client = client_of(Cloud(server, {"192.0.2.1"}), Memory(), "192.0.2.1")
        assert (await ask(client)).success
        server.prefix = methods.PREFIXES[0]  # the backend was upgraded
        assert (await ask(client)).success
        server.without_methods = frozenset({"RegisterDevice"})
        with pytest.raises(RemoteError) as caught:
            await ask(client)
        assert caught.value.code == "unimplemented"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("host", "good"),
    [("127.0.0.1", True), ("::1", True), ("192.0.2.1", False), ("localhost", False)],
)
def test_plaintext_is_for_loopback_only(host: str, good: bool) -> None:
    server = Server(HostPort(host, 1), insecure=True)
    if good:
        server.check()
    else:
        with pytest.raises(LocalError):
            server.check()


# ---- Errors -------------------------------------------------------------------------

CARRIED = pb.Error(
    code=pb.ERROR_RATE_LIMITED, reason="too\nmany\x1b[2J", retry_after_ms=90_000, field="x"
)


@pytest.mark.parametrize(
    ("row", "status", "message", "carried", "code"),
    [
        (1, "RESOURCE_EXHAUSTED", "no", CARRIED.SerializeToString(), "rate_limited"),
        (2, "UNAUTHENTICATED", "no", b"", "token_invalid"),
        (3, "NOT_FOUND", "", b"", "device_unknown"),
        (4, "UNAVAILABLE", "gone", b"", "lost"),
        (5, "DEADLINE_EXCEEDED", "", b"", "timeout"),
        (6, "UNKNOWN", "Invalid content-type: 'text/html'", b"", "captive_portal"),
        (7, "UNKNOWN", "Received http2 header with status: 502", b"", "not_grpc"),
        (8, "RESOURCE_EXHAUSTED", "message larger than max (9 vs. 4)", b"", "too_large"),
        (9, "INTERNAL", "boom", b"", "server_failed"),
        (10, "PERMISSION_DENIED", "", b"\xff\xff\xff", "token_revoked"),
        (11, "MADE_UP", "", b"", "server_failed"),
    ],
)
def test_errors(row: int, status: str, message: str, carried: bytes, code: str) -> None:
    error = wire.error_of_status(StatusError(status, message, carried))
    assert error.code == code
    assert error.reason
    assert error.remedy
    assert error.reason.isprintable()
    if row == 1:
        assert error.retry_after_s == 90
        assert "[x]" in error.reason


def test_every_code_of_the_contract_has_a_remedy() -> None:
    for code in wire.CODES.values():
        assert code == "internal" or REMEDIES[code]


@given(st.binary(max_size=200))
def test_any_error_trailer_is_survived(data: bytes) -> None:
    error = wire.error_of_status(StatusError("INTERNAL", "x", data))
    assert error.reason.isprintable()
    assert 0 <= error.retry_after_s <= 86400


@given(st.binary(max_size=300))
def test_any_answer_is_a_message_or_a_remote_error(data: bytes) -> None:
    from wantastic.control.client import _parse

    try:
        message = _parse(pb.GetConfigurationResponse, data)
    except RemoteError:
        return
    wire.statement_of(message.configuration)


# ---- What comes from files ----------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "content", "token"),
    [
        (1, b"abc\n", "abc"),
        (2, b"  abc  \r\n", "abc"),
        (3, b"", None),
        (4, b"\n\n", None),
        (5, b"xyzzy plugh", None),
        (6, b"xyzzy\nplugh", None),
        (7, b"\xff\xfe", None),
        (8, b"x" * 9000, None),
    ],
)
def test_token_files(row: int, content: bytes, token: str | None, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    sources: list[Callable[[], str]] = [
        lambda: read_token_file(str(path)),
        lambda: token_argument("-", lambda most: content[:most]),
    ]
    for source in sources:
        if token is not None:
            assert source() == token
        else:
            with pytest.raises(LocalError) as caught:
                source()
            shown = str(caught.value).replace(str(path), "")
            assert not any(word in shown for word in ("xyzzy", "xxx"))


def test_token_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "fifo"):
        with pytest.raises(LocalError):
            read_token_file(str(path))
    assert token_argument("tok", lambda most: b"") == "tok"


def test_roots(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.pem", tmp_path / "bad.pem"
    good.write_bytes(b"# a comment\n" + authority().pem)
    bad.write_bytes(authority().pem.replace(b"M", b"N", 1))
    assert b"comment" not in read_roots(str(good))
    for path in (str(bad), str(tmp_path / "missing"), str(tmp_path)):
        with pytest.raises(LocalError) as caught:
            read_roots(path)
        assert caught.value.code == "ca_file"
    if "SSL_CERT_FILE" not in os.environ:
        assert b"comment" not in read_roots("", (str(tmp_path / "missing"), str(good)))
        with pytest.raises(LocalError) as caught:
            read_roots("", (str(tmp_path / "missing"),))
        assert caught.value.code == "no_roots"


@given(st.binary(max_size=100))
def test_credentials_read_anything(data: bytes) -> None:
    Credentials.parse(data)


def test_credentials_round_trip() -> None:
    one = Credentials("s:1", "d", "t", "secret", capabilities=("watch",), saved_unix_s=5.0)
    assert Credentials.parse(one.render()) == one
    assert "secret" not in repr(one)


# ---- Imports ------------------------------------------------------------------------


def test_the_agent_starts_without_importing_the_control_plane() -> None:
    """The tunnel runs from the cache before gRPC, protobuf and crypto are loaded."""
    program = (
        "import sys\n"
        "import wantastic.agent.runner, wantastic.cli.run\n"
        "heavy = {'grpc', 'grpclib', 'h2', 'google.protobuf', 'Crypto', 'segno',\n"
        "         'cryptography', 'wantastic.control.plane', 'wantastic.control.auth_pb2'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert out.stdout.strip() == "[]", out.stderr


def test_control_errors_are_told_apart() -> None:
    for kind in (LocalError, TransportError, RemoteError):
        assert issubclass(kind, ControlError)
