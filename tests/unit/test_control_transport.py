"""The gRPC seam: the same contract over grpcio and grpclib, with a good server and bad ones."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import socket
import time
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import grpc
import pytest
from h2.connection import H2Connection
from h2.errors import ErrorCodes

from tests.support.control_peers import (
    OK_HEADERS,
    OK_TRAILERS,
    Authority,
    authority,
    grpc_server,
    http2,
    message,
    raw_server,
    server_context,
)
from wantastic.control import grpcio_transport
from wantastic.control.diagnose import diagnose
from wantastic.control.dial import dial as connected
from wantastic.control.errors import unreachable
from wantastic.control.methods import ERROR_TRAILER
from wantastic.control.transport import (
    Address,
    ConnectFailed,
    Limits,
    StatusError,
    Tls,
    Transport,
    load,
)

DAY = timedelta(days=1)
PATH = "/AuthService/GetConfiguration"
# "relayed" is grpcio on its way around a default route into the tunnel.
LIBRARIES = ("grpcio", "grpclib", "relayed")
LIMITS = Limits(connect_s=5.0, message_bytes=100_000)
both = pytest.mark.parametrize("library", LIBRARIES)


def tls(**change: Any) -> Tls:
    return Tls(**{"server_name": "control.example", "roots_pem": authority().pem, **change})


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 30))


async def dial(
    library: Any, port: int, secure: Tls | None = None, limits: Limits = LIMITS
) -> Transport:
    connect = load("grpcio", lambda: 1) if library == "relayed" else load(library)
    return await connect(Address("127.0.0.1", port), "control.example", secure, limits)


@pytest.fixture(autouse=True)
def _without_privilege(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root may set a mark: the relay is tested without one here, in a namespace elsewhere."""

    async def unmarked(address: Address, mark: int) -> Any:
        return await connected(address)

    monkeypatch.setattr(grpcio_transport, "dial", unmarked)


async def failing_call(library: str, port: int, timeout_s: float = 5.0) -> StatusError:
    """Make one call that must fail, within its deadline and a little."""
    began = time.monotonic()
    transport = await dial(library, port)
    try:
        with pytest.raises(StatusError) as caught:
            await transport.unary(PATH, b"x", (), timeout_s)
    finally:
        await transport.close()
    assert time.monotonic() - began < timeout_s + 2
    return caught.value


# ---- What every transport must do ---------------------------------------------------


@both
def test_unary_stream_metadata_and_status_over_mutual_tls(library: str) -> None:
    async def main() -> None:
        seen: dict[str, str] = {}

        async def echo(request: bytes, context: Any) -> bytes:
            seen.update(context.invocation_metadata() or ())
            seen["peer"] = str(context.auth_context().get("x509_common_name"))
            return request[::-1]

        async def refuse(request: bytes, context: Any) -> bytes:
            context.set_trailing_metadata(((ERROR_TRAILER, b"\x00\xff why"),))
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "nö")
            return b""

        async def count(request: bytes, context: Any) -> Any:
            for i in range(3):
                yield bytes([i]) * 50_000

        client = authority().issue("device-1")
        pair = authority().issue("control.example")
        unary = {PATH: echo, "/AuthService/RefreshToken": refuse}
        async with grpc_server(
            unary, {"/AuthService/Watch": count}, pair=pair, client_ca=authority().pem
        ) as (port, _):
            transport = await dial(library, port, tls(chain_pem=client.chain, key_pem=client.key))
            reply = await transport.unary(PATH, b"abc", (("authorization", "Bearer t"),), 5)
            assert reply == b"cba"
            assert seen["authorization"] == "Bearer t"
            assert "device-1" in seen["peer"]
            blocks = [block async for block in transport.stream("/AuthService/Watch", b"", ())]
            assert blocks == [bytes([i]) * 50_000 for i in range(3)]
            with pytest.raises(StatusError) as caught:
                await transport.unary("/AuthService/RefreshToken", b"", (), 5)
            assert caught.value.status == "PERMISSION_DENIED"
            assert caught.value.message == "nö"
            assert caught.value.error == b"\x00\xff why"
            with pytest.raises(StatusError) as caught:
                await transport.unary("/Nobody/Home", b"", (), 5)
            assert caught.value.status == "UNIMPLEMENTED"
            many = [transport.unary(PATH, b"%d" % i, (), 5) for i in range(100)]
            assert await asyncio.gather(*many) == [
                b"%d"[::1] % i if i < 10 else str(i)[::-1].encode() for i in range(100)
            ]
            await transport.close()
            await transport.close()

    run(main())


@both
def test_deadline_and_cancelled_stream(library: str) -> None:
    async def main() -> None:
        ended = asyncio.Event()

        async def hang(request: bytes, context: Any) -> bytes:
            await asyncio.sleep(60)
            return b""

        async def forever(request: bytes, context: Any) -> Any:
            try:
                yield b"first"
                await asyncio.sleep(60)
            finally:
                ended.set()

        async with grpc_server({PATH: hang}, {"/w": forever}) as (port, _):
            transport = await dial(library, port)
            with pytest.raises(StatusError) as caught:
                await transport.unary(PATH, b"", (), 0.2)
            assert caught.value.status == "DEADLINE_EXCEEDED"
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            replies = transport.stream("/w", b"", ())
            assert await anext(replies) == b"first"
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(replies), 0.1)
            await replies.aclose()  # type: ignore[attr-defined]
            await asyncio.wait_for(ended.wait(), 5)
            await transport.close()

    run(main())


async def hang(request: bytes, context: Any) -> bytes:
    await asyncio.sleep(60)
    return b""


async def forever(request: bytes, context: Any) -> Any:
    yield b"first"
    await asyncio.sleep(60)


@both
def test_server_that_goes_away_under_a_call_and_a_stream(library: str) -> None:
    async def main() -> None:
        async with grpc_server({PATH: hang}, {"/w": forever}) as (port, server):
            transport = await dial(library, port)
            replies = transport.stream("/w", b"", ())
            assert await anext(replies) == b"first"
            call = asyncio.ensure_future(transport.unary(PATH, b"", (), 10))
            await asyncio.sleep(0.1)
            await server.stop(0)
            for waiting in (call, anext(replies)):
                with pytest.raises(StatusError) as caught:
                    await waiting
                assert caught.value.status in ("UNAVAILABLE", "CANCELLED")
            with pytest.raises((StatusError, ConnectFailed)):
                await transport.unary(PATH, b"", (), 2)
            await transport.close()

    run(main())


@both
def test_closing_the_connection_fails_its_calls_and_does_not_cancel_their_tasks(
    library: str,
) -> None:
    """A refresh that fails drops the connection under the stream, which has to go on."""

    async def main() -> None:
        async with grpc_server({PATH: hang}, {"/w": forever}) as (port, _):
            transport = await dial(library, port)
            replies = transport.stream("/w", b"", ())
            assert await anext(replies) == b"first"
            waiting = [
                asyncio.ensure_future(transport.unary(PATH, b"", (), 10)),
                asyncio.ensure_future(anext(replies)),  # type: ignore[arg-type]
            ]
            await asyncio.sleep(0.1)
            await transport.close()
            for call in waiting:
                with pytest.raises(StatusError) as caught:
                    await call
                assert caught.value.status == "UNAVAILABLE"
            # One that is cancelled itself still is.
            transport = await dial(library, port)
            own = asyncio.ensure_future(transport.unary(PATH, b"", (), 10))
            await asyncio.sleep(0.1)
            own.cancel()
            with pytest.raises(asyncio.CancelledError):
                await own
            await transport.close()

    run(main())


# ---- Connections that must not come about, and what the diagnosis says ---------------

YESTERDAY = {"start": -9 * DAY, "end": -DAY}
TOMORROW = {"start": DAY, "end": 9 * DAY}


@both
@pytest.mark.parametrize(
    ("row", "names", "dates", "clock_is_wrong", "code"),
    [
        (1, ("other.example",), {}, False, "tls_wrong_name"),
        (2, ("control.example",), YESTERDAY, False, "tls_expired"),
        (3, ("control.example",), TOMORROW, False, "tls_not_yet_valid"),
        (4, ("control.example",), TOMORROW, True, "clock_wrong"),
        (5, ("control.example",), YESTERDAY, True, "clock_wrong"),
        (6, ("control.example",), None, False, "tls_untrusted"),
    ],
)
def test_certificates_that_are_refused(
    library: str, row: int, names: Any, dates: Any, clock_is_wrong: bool, code: str
) -> None:
    async def main() -> None:
        issuer = authority() if dates is not None else Authority("somebody else")
        pair = issuer.issue(*names, **(dates or {}))
        async with grpc_server({}, pair=pair) as (port, _):
            with pytest.raises(ConnectFailed):
                await dial(library, port, tls())
            found = await diagnose(
                Address("127.0.0.1", port), tls(), clock_is_wrong=clock_is_wrong, timeout_s=5
            )
            assert found.code == code
            assert found.remedy

    run(main())


async def web_page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(
        b"HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\n\r\n<html>log in</html>"
    )
    await writer.drain()


async def http1_api(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


@both
@pytest.mark.parametrize(
    ("row", "handler", "server_tls", "client_tls", "code"),
    [
        (1, web_page, False, True, "captive_portal"),
        (2, web_page, False, False, "captive_portal"),
        (3, http1_api, True, True, "not_grpc"),
        (4, http1_api, False, False, "not_grpc"),
        (5, silence, False, True, "connect_timeout"),
        (6, silence, True, True, "timeout"),
    ],
)
def test_servers_that_are_none(
    library: str, row: int, handler: Any, server_tls: bool, client_tls: bool, code: str
) -> None:
    async def main() -> None:
        context = None
        if server_tls:
            alpn = "http/1.1" if handler is http1_api else "h2"
            context = server_context(authority().issue("control.example"), alpn=alpn)
        async with raw_server(handler, context) as port:
            secure = tls() if client_tls else None
            with pytest.raises(ConnectFailed):
                await dial(library, port, secure, Limits(connect_s=1.0))
            found = await diagnose(Address("127.0.0.1", port), secure, timeout_s=1)
            assert found.code == code

    run(main())


@both
def test_nobody_listens(library: str) -> None:
    async def main() -> None:
        async with raw_server(silence) as port:
            pass
        with pytest.raises(ConnectFailed):
            await dial(library, port, tls())
        assert (await diagnose(Address("127.0.0.1", port), tls(), timeout_s=2)).code == "refused"

    run(main())


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(errno.EHOSTUNREACH, "Connect call failed ('x', 1)"), "No route to host"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (OSError("Multiple exceptions: 1, 2"), "Multiple exceptions: 1, 2"),
    ],
)
def test_why_nothing_can_be_reached(error: OSError, why: str) -> None:
    found = unreachable(Address("x", 1), error)
    assert (found.code, found.reason) == ("unreachable", f"x:1 cannot be reached: {why}")


@both
def test_client_certificate_that_the_server_does_not_know(library: str) -> None:
    async def main() -> None:
        stranger = Authority("stranger").issue("device-1")
        pair = authority().issue("control.example")
        secure = tls(chain_pem=stranger.chain, key_pem=stranger.key)
        async with grpc_server({}, pair=pair, client_ca=authority().pem) as (port, _):

            async def attempt() -> None:
                # TLS 1.3 tells a client after its handshake, so the call may be what fails.
                transport = await dial(library, port, secure)
                await transport.unary(PATH, b"", (), 5)

            with pytest.raises((ConnectFailed, StatusError)):
                await attempt()
            found = await diagnose(Address("127.0.0.1", port), secure, timeout_s=2)
            assert found.code == "tls_client_refused"

    run(main())


# ---- Hostile HTTP/2 -----------------------------------------------------------------


def headers(extra: list[tuple[str, str]], *, end: bool = True) -> Callable[..., None]:
    def react(connection: H2Connection, stream: int) -> None:
        connection.send_headers(stream, extra, end_stream=end)

    return react


def body(data: bytes, trailers: list[tuple[str, str]] | None = None) -> Callable[..., None]:
    def react(connection: H2Connection, stream: int) -> None:
        connection.send_headers(stream, OK_HEADERS)
        connection.send_data(stream, data)
        if trailers is not None:
            connection.send_headers(stream, trailers, end_stream=True)

    return react


def reset(connection: H2Connection, stream: int) -> None:
    connection.reset_stream(stream, ErrorCodes.INTERNAL_ERROR)


def goaway(connection: H2Connection, stream: int) -> None:
    connection.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)


def garbage(connection: H2Connection, stream: int) -> list[tuple[float, bytes]]:
    return [(0, b"\xff" * 100)]


def unknown_frame(connection: H2Connection, stream: int) -> list[tuple[float, bytes]]:
    body(message(b"fine"), OK_TRAILERS)(connection, stream)
    grease = b"\x00\x00\x04\xbe\x00" + stream.to_bytes(4, "big") + b"abcd"
    return [(0, grease)]


def pings(connection: H2Connection, stream: int) -> list[tuple[float, bytes]]:
    frame = b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + b"12345678"
    return [(0, frame * 5000), (0, b"\xff" * 50)]


def endless_headers(connection: H2Connection, stream: int) -> list[tuple[float, bytes]]:
    at = stream.to_bytes(4, "big")
    start = b"\x00\x00\x01\x01\x00" + at + b"\x88"
    more = b"\x00\x00\x40\x09\x00" + at + b"\x00\x1ex-padding-of-thirty-characters\x20" + b"v" * 32
    return [(0, start), *((0.0, more[:9] + more[9 : 9 + 64]) for _ in range(500))]


def slow_headers(connection: H2Connection, stream: int) -> list[tuple[float, bytes]]:
    at = stream.to_bytes(4, "big")
    start = b"\x00\x00\x01\x01\x00" + at + b"\x88"
    return [(0, start), *((0.2, b"\x00\x00\x00\x09\x00" + at) for _ in range(100))]


HTML = [(":status", "200"), ("content-type", "text/html")]
WEB_404 = [(":status", "404"), ("content-type", "text/html")]
NO_STATUS = [(":status", "200"), ("content-type", "application/grpc")]
ODD_STATUS = [*NO_STATUS, ("grpc-status", "no number")]
FAR_STATUS = [*NO_STATUS, ("grpc-status", "4711")]
BAD_TRAILER = [("grpc-status", "7"), (ERROR_TRAILER, "***not base64***")]
BIG_HEADER = [*NO_STATUS, ("x-big", "v" * 60_000)]
ANY_FAILURE = {"UNKNOWN", "INTERNAL", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED"}


@both
@pytest.mark.parametrize(
    ("row", "react", "statuses"),
    [
        (1, headers(HTML), {"UNKNOWN", "INTERNAL"}),
        (2, headers(WEB_404), {"UNIMPLEMENTED"}),
        (3, headers(NO_STATUS), ANY_FAILURE),
        (4, headers(ODD_STATUS), ANY_FAILURE),
        (5, headers(FAR_STATUS), ANY_FAILURE),
        (6, headers(BIG_HEADER), ANY_FAILURE),
        (7, body(message(b"", size=500_000)), {"RESOURCE_EXHAUSTED"}),
        (8, body(message(b"", size=0xFFFFFFFF)), {"RESOURCE_EXHAUSTED"}),
        (9, body(message(b"short", size=50), OK_TRAILERS), ANY_FAILURE),
        (10, body(b"\x00\x00", OK_TRAILERS), ANY_FAILURE),
        (11, body(message(b"zip", flag=1), OK_TRAILERS), ANY_FAILURE | {"UNIMPLEMENTED"}),
        (12, body(b"", OK_TRAILERS), ANY_FAILURE | {"UNIMPLEMENTED"}),
        (13, body(message(b"fine"), [("grpc-status", "13")]), {"INTERNAL"}),
        (14, body(message(b"fine"), BAD_TRAILER), ANY_FAILURE | {"PERMISSION_DENIED"}),
        (15, reset, ANY_FAILURE),
        (16, goaway, ANY_FAILURE | {"DEADLINE_EXCEEDED"}),
        (17, garbage, ANY_FAILURE),
        (18, pings, ANY_FAILURE),
        (19, endless_headers, ANY_FAILURE | {"DEADLINE_EXCEEDED"}),
        (20, slow_headers, ANY_FAILURE | {"DEADLINE_EXCEEDED"}),
    ],
)
def test_hostile_answers_fail_in_time_and_with_a_status(
    library: str, row: int, react: Any, statuses: set[str]
) -> None:
    async def main() -> None:
        async with raw_server(http2(react)) as port:
            error = await failing_call(library, port, 2.0)
            assert error.status in statuses, error

    run(main())


@both
def test_frames_of_unknown_type_are_overlooked(library: str) -> None:
    async def main() -> None:
        async with raw_server(http2(unknown_frame)) as port:
            transport = await dial(library, port)
            assert await transport.unary(PATH, b"", (), 5) == b"fine"
            assert await transport.unary(PATH, b"", (), 5) == b"fine"
            await transport.close()

    run(main())


@both
def test_rapid_reset_of_every_call_leaves_the_next_one_working(library: str) -> None:
    async def main() -> None:
        calls = 0

        def react(connection: H2Connection, stream: int) -> None:
            nonlocal calls
            calls += 1
            if calls <= 200:
                reset(connection, stream)
            else:
                body(message(b"at last"), OK_TRAILERS)(connection, stream)

        async with raw_server(http2(react)) as port:
            transport = await dial(library, port)
            for _ in range(200):
                with pytest.raises(StatusError):
                    await transport.unary(PATH, b"", (), 5)
            assert await transport.unary(PATH, b"", (), 5) == b"at last"
            await transport.close()

    run(main())


@both
def test_no_library_logs_the_credential(
    library: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = (("authorization", "Bearer very-secret-token"),)

    async def main() -> None:
        async with raw_server(http2(body(message(b"x"), OK_TRAILERS))) as port:
            transport = await dial(library, port)
            await transport.unary(PATH, b"", secret, 5)
            await transport.close()
        async with raw_server(http2(reset)) as port:
            transport = await dial(library, port)
            with pytest.raises(StatusError) as caught:
                await transport.unary(PATH, b"", secret, 5)
            assert "very-secret" not in str(caught.value)
            await transport.close()

    run(main())
    names = ("grpclib", "hpack", "grpc")  # h2 is the test's own server as well
    written = [r.getMessage() for r in caplog.records if r.name.startswith(names)]
    assert not [line for line in written if "very-secret" in line]
    assert "very-secret" not in "".join(capfd.readouterr())


@both
def test_nothing_is_left_behind(library: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with raw_server(http2(body(message(b"x"), OK_TRAILERS))) as port:
            for _ in range(5):
                transport = await dial(library, port)
                await transport.unary(PATH, b"", (), 5)
                await transport.close()
            await asyncio.sleep(0.05)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            names = [t.get_coro().__qualname__ for t in others]  # type: ignore[union-attr]
            assert not [n for n in names if "ransport" in n or "Channel" in n]

    run(main())
    gc.collect()
    assert [r for r in caplog.records if r.levelname in ("ERROR", "CRITICAL")] == []
