"""Finds out why no connection came about, by one more attempt that looks at each step.

gRPC libraries say "unavailable" for a closed port, a wrong clock and a captive portal alike.
The attempt here goes through TCP, TLS (verified like any other) and the first bytes of
HTTP/2, and sends nothing secret. It runs after a failure only.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

from wantastic.control.dial import dial
from wantastic.control.errors import LocalError, TransportError, unreachable
from wantastic.control.tls import client_context, explain
from wantastic.control.transport import Address, Tls

HTTP2_OPENING: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SETTINGS: Final = 4
_HEAD_BYTES: Final = 9
# 302 and 307 lead to a portal's page; a page itself comes with 200 or 511.
_PORTAL: Final = (b" 200", b" 301", b" 302", b" 303", b" 307", b" 308", b" 511")


async def diagnose(
    address: Address,
    tls: Tls | None,
    *,
    clock_is_wrong: bool = False,
    timeout_s: float = 10.0,
    mark: int = 0,
) -> TransportError | LocalError:
    """Return why no gRPC connection to `address` comes about."""
    name = tls.server_name if tls else str(address)
    stage = "connect_timeout"
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout_s):
            context = client_context(tls) if tls else None
            reader, writer = await asyncio.open_connection(
                sock=await dial(address, mark),
                ssl=context,
                server_hostname=tls.server_name if tls else None,
            )
            stage = "timeout"
            secured = writer.get_extra_info("ssl_object")
            if secured is not None and secured.selected_alpn_protocol() != "h2":
                return TransportError("not_grpc", f"{name} does not offer HTTP/2")
            data = await _first_bytes(reader, writer, HTTP2_OPENING)
            if not data and tls and tls.chain_pem:
                text = f"{name} closes the connection once it has seen our client certificate"
                return TransportError("tls_client_refused", text)
            return _answer(name, data)
    except LocalError as error:
        return error
    except ssl.SSLError as error:
        found = explain(error, name, clock_is_wrong=clock_is_wrong)
        if found.code == "tls":
            return await _maybe_plaintext(address, name, timeout_s, mark) or found
        return found
    except ConnectionRefusedError:
        return TransportError("refused", f"Nothing listens on {address}")
    except TimeoutError:
        return TransportError(stage, f"{name} ({address}) does not answer")
    except ConnectionError:
        return TransportError("lost", f"{name} ({address}) closed the connection")
    except OSError as error:
        return unreachable(address, error)
    finally:
        if writer is not None:
            writer.close()


async def _first_bytes(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, opening: bytes
) -> bytes:
    """Return what the peer says first; the alert of a TLS 1.3 peer comes out here."""
    writer.write(opening)
    data = await reader.read(_HEAD_BYTES)
    while data and len(data) < 4096:
        try:
            more = await asyncio.wait_for(reader.read(4096), 0.3)
        except TimeoutError:
            break
        if not more:
            break
        data += more
    return data


def _answer(name: str, data: bytes) -> TransportError:
    """Return what the first bytes of the peer mean."""
    if data.startswith(b"HTTP/"):
        if any(data[8:].startswith(code) for code in _PORTAL):
            return TransportError("captive_portal", f"A web page answers instead of {name}")
        return TransportError("not_grpc", f"{name} answers in HTTP/1")
    if len(data) >= _HEAD_BYTES and data[3] == _SETTINGS:
        return TransportError("lost", f"The connection to {name} was lost")
    if not data:
        return TransportError("lost", f"{name} closed the connection")
    return TransportError("not_grpc", f"{name} does not speak HTTP/2")


async def _maybe_plaintext(
    address: Address, name: str, timeout_s: float, mark: int
) -> TransportError | None:
    """Return what stands behind a port that does not speak TLS, if it is a web server."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(sock=await dial(address, mark))
            try:
                request = f"GET / HTTP/1.0\r\nHost: {name}\r\n\r\n".encode("ascii", "replace")
                found = _answer(name, await _first_bytes(reader, writer, request))
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    return found if found.code == "captive_portal" else None
